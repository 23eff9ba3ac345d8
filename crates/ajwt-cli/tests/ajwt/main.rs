//! The program, run as a user runs it.

mod expected;
mod gateway;
mod https;
mod incidents;
mod keys;
mod readme;
mod servers;
mod store;
mod support;
mod terminal;
mod tokens;
mod trust;
mod walkthrough;
