//! What threads meet at. `tests/models` compiles the modules that use it on locks and atomics whose order
//! a scheduler chooses.

pub(crate) use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, atomic};
