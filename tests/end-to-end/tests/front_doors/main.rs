//! The axum, the actix and the hyper door side by side, on real sockets.

mod behaviour;
mod doors;
mod jwks;
mod parity;
mod wire;
