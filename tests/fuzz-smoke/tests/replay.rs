//! Seeds, inputs that once failed, and a few mutations of them through every target: seconds, not the hours
//! of the fuzzers.

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use ajwt_fuzz::{TARGETS, Target, regression_folders};

/// Of each target, one after the other over its seeds.
const MUTATIONS: usize = 1000;

macro_rules! replay {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            replay(stringify!($name));
        })*

        #[test]
        fn every_target_is_replayed() {
            assert_eq!(TARGETS.map(|target| target.name).as_slice(), [$(stringify!($name)),*]);
        }
    };
}

replay! {
    authorized_keys claims header_value jwk_set mutated_token private_key_der private_key_text public_key_der
    public_key_text redis_reply redis_server token url_policy verification
}

/// What cargo-fuzz is not told of is never fuzzed.
#[test]
fn every_target_has_a_fuzzer() {
    let mut targets = TARGETS.map(|target| target.name.to_owned()).to_vec();
    targets.sort();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");

    let manifest = fs::read_to_string(folder.join("Cargo.toml")).expect("the manifest");
    let mut binaries = Vec::new();
    for table in manifest.split("[[bin]]").skip(1) {
        let member = |name: &str| {
            let found = table.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = "));
            found.unwrap_or_else(|| panic!("no {name} in {table}")).trim_matches('"')
        };
        let name = member("name");
        assert_eq!(member("path"), format!("fuzz_targets/{name}.rs"));
        binaries.push(name.to_owned());
    }
    binaries.sort();
    assert_eq!(binaries, targets, "the binaries of fuzz/Cargo.toml");

    let mut fuzzers = Vec::new();
    for file in fs::read_dir(folder.join("fuzz_targets")).expect("the fuzzers") {
        let path = file.expect("an entry").path();
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        let source = fs::read_to_string(&path).expect("a fuzzer");
        assert!(source.contains(&format!("ajwt_fuzz::{name}(")), "{name} fuzzes another target");
        fuzzers.push(name);
    }
    fuzzers.sort();
    assert_eq!(fuzzers, targets, "the files of fuzz/fuzz_targets");
}

#[test]
fn no_input_that_once_failed_is_of_a_target_that_is_not_there() {
    let folders = regression_folders();
    assert!(!folders.is_empty());
    assert!(folders.iter().all(|folder| TARGETS.iter().any(|target| target.name == folder)), "{folders:?}");
}

fn replay(name: &str) {
    let target = TARGETS.into_iter().find(|target| target.name == name).expect("a target");
    let mut inputs = (target.seeds)();
    assert!(!inputs.is_empty());
    inputs.extend(target.regressions());
    for input in &inputs {
        run(&target, input);
    }
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for round in 0..MUTATIONS {
        let other = &inputs[random.below(inputs.len())];
        run(&target, &mutated(&inputs[round % inputs.len()], other, &mut random));
    }
}

/// A failure shows its input.
fn run(target: &Target, input: &[u8]) {
    if catch_unwind(AssertUnwindSafe(|| (target.run)(input))).is_err() {
        panic!("{} fails on \"{}\"", target.name, input.escape_ascii());
    }
}

fn mutated(input: &[u8], other: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..=random.below(3) {
        let at = random.below(bytes.len() + 1);
        match random.below(6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            1 if at < bytes.len() => bytes[at] = random.below(256) as u8,
            2 if at < bytes.len() => drop(bytes.remove(at)),
            3 => bytes.insert(at, random.below(256) as u8),
            4 => bytes.truncate(at),
            // The end of another.
            _ => {
                bytes.truncate(at);
                bytes.extend_from_slice(&other[random.below(other.len() + 1)..]);
            }
        }
    }
    bytes
}

/// xorshift64*: the same numbers in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % end
    }
}
