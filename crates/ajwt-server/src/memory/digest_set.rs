//! A set of 128-bit digests that only grows, then is dropped whole.

/// Slots of a set that has its first entry.
const MIN_SLOTS: usize = 8;

/// Open addressing with linear probing. Zero marks a free slot, so a digest of 0 is stored as 1; hashes
/// are keyed, so nobody can aim at that collision.
///
/// A table of the standard library keeps a control byte per entry and doubles when it grows; this one grows
/// by a quarter: 16 bytes an entry, and 18 to 23 with the free slots.
#[derive(Default)]
pub(super) struct DigestSet {
    slots: Vec<u128>,
    len: usize,
}

impl DigestSet {
    /// For about so many digests; more find room, too.
    pub(super) fn with_room_for(digests: usize) -> Self {
        if digests == 0 {
            return Self::default();
        }
        let slots = digests.saturating_add(digests / 4).next_multiple_of(8);
        Self { slots: vec![0; slots], len: 0 }
    }

    /// Adds a digest; `false` if it is there.
    pub(super) fn insert(&mut self, digest: u128) -> bool {
        let digest = digest.max(1);
        // At most 7 of 8 slots are taken, so that runs stay short.
        if self.len >= self.slots.len() / 8 * 7 {
            self.grow();
        }
        let inserted = insert_into(&mut self.slots, digest);
        self.len += usize::from(inserted);
        inserted
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    fn grow(&mut self) {
        let slots = self.slots.len();
        let slots = slots.saturating_add(slots / 4).next_multiple_of(8).max(MIN_SLOTS);
        let full = std::mem::replace(&mut self.slots, vec![0; slots]);
        for digest in full.into_iter().filter(|digest| *digest != 0) {
            insert_into(&mut self.slots, digest);
        }
    }
}

fn insert_into(slots: &mut [u128], digest: u128) -> bool {
    let start = home(digest, slots.len());
    let (before, after) = slots.split_at_mut(start);
    for slot in after.iter_mut().chain(before) {
        if *slot == digest {
            return false;
        }
        if *slot == 0 {
            *slot = digest;
            return true;
        }
    }
    // Unreachable while a slot is free, which insert sees to. Refusing is the safe answer.
    false
}

/// The slot of a digest: its upper 64 bits, scaled to the number of slots, which is no power of two.
fn home(digest: u128, slots: usize) -> usize {
    // usize has at most 64 bits, so neither product nor quotient is cut.
    (((digest >> 64) * (slots as u128)) >> 64) as usize
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_answers_as_a_hash_set_does(room in 0..3000_usize, digests in proptest::collection::vec(
            prop_oneof![any::<u128>(), 1..50_u128, Just(u128::MAX), (0..9_u128).prop_map(|n| n << 64)], 0..2000,
        )) {
            let (mut ours, mut model) = (DigestSet::with_room_for(room), HashSet::new());
            for digest in digests {
                prop_assert_eq!(ours.insert(digest), model.insert(digest.max(1)));
                prop_assert_eq!(ours.len(), model.len());
            }
        }
    }

    #[test]
    fn as_many_as_were_expected_need_no_more_room() {
        let mut set = DigestSet::with_room_for(3000);
        let slots = set.slots.len();
        (1..=3000_u128).for_each(|n| assert!(set.insert(n << 100)));
        assert_eq!(set.slots.len(), slots);
        assert!(slots * 16 <= 3000 * 21, "{slots}");
    }

    #[test]
    fn an_entry_takes_at_most_23_bytes_of_slots() {
        let mut set = DigestSet::default();
        for n in 1..200_000_u128 {
            assert!(set.insert(n.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)));
            if n > 1000 {
                assert!(
                    set.slots.len() * 16 <= set.len() * 23,
                    "{} slots for {}",
                    set.slots.len(),
                    set.len()
                );
            }
        }
    }
}
