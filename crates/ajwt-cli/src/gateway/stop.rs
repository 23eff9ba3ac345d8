use crate::{failure::Failure, terminal};

/// The signals that ask a program to stop.
pub(super) struct Stop {
    /// Those that somebody sends on purpose.
    #[cfg(unix)]
    signals: [tokio::signal::unix::Signal; 2],
    /// What comes when a terminal is closed. `None`: it is not to count.
    #[cfg(unix)]
    hang_up: Option<tokio::signal::unix::Signal>,
}

impl Stop {
    /// From now on they end the program through [`wait`](Self::wait) only.
    pub(super) fn listen() -> Result<Self, Failure> {
        #[cfg(unix)]
        use tokio::signal::unix::{SignalKind, signal};

        terminal::leave_signals();
        Ok(Self {
            #[cfg(unix)]
            signals: [signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?],
            #[cfg(unix)]
            hang_up: match SignalKind::hangup() {
                // It is to outlive its terminal.
                kind if terminal::is_ignored(kind) => None,
                kind => Some(signal(kind)?),
            },
        })
    }

    pub(super) async fn wait(&mut self) {
        #[cfg(unix)]
        {
            if let Some(hang_up) = &mut self.hang_up {
                let [terminate, interrupt] = &mut self.signals;
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                    _ = hang_up.recv() => {}
                }
                return;
            }
        }
        self.wait_for_haste().await;
    }

    /// Without the end of a terminal, of which the program may be told more than once.
    pub(super) async fn wait_for_haste(&mut self) {
        #[cfg(unix)]
        {
            let [terminate, interrupt] = &mut self.signals;
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        }
        #[cfg(not(unix))]
        let _ = tokio::signal::ctrl_c().await;
    }
}
