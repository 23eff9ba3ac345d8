use std::{thread, time::Duration};

use ajwt_server::{Clock as _, SystemClock};

/// Enough on the busiest machine for what takes a moment.
const LIMIT: Duration = Duration::from_secs(60);

const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

/// Waits until this holds.
///
/// # Panics
/// If it does not within a minute.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let held = tokio::time::timeout(LIMIT, async {
        while !holds().await {
            tokio::time::sleep(BETWEEN_LOOKS).await;
        }
    });
    assert!(held.await.is_ok(), "not within {LIMIT:?}: {what}");
}

/// As [`until`], without a runtime.
///
/// # Panics
/// If it does not within a minute.
#[track_caller]
pub fn until_blocking(what: &str, mut holds: impl FnMut() -> bool) {
    let clock = SystemClock::new();
    while !holds() {
        assert!(clock.monotonic() < LIMIT, "not within {LIMIT:?}: {what}");
        thread::sleep(BETWEEN_LOOKS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_waits_for_what_comes() {
        let mut looks = 0;
        until("the third look", async || {
            looks += 1;
            looks == 3
        })
        .await;
        assert_eq!(looks, 3);
    }

    #[tokio::test(start_paused = true)]
    #[should_panic = "not within 60s: pigs fly"]
    async fn it_names_what_does_not_come() {
        until("pigs fly", async || false).await;
    }
}
