//! Integration tests: real processes, real sockets, real clients. One binary, one module per subject.
//!
//! ```text
//! ATOLL_TEST_PROGRAM=name   only the differential programs whose name contains `name`
//! ATOLL_TEST_ROW=21         only this row of the hostile table
//! ATOLL_TEST_ATOLL=path     another atoll binary
//! ATOLL_TEST_WORKERD=path   another workerd binary
//! ```
#![forbid(unsafe_code)]

mod audit;
mod bindings;
mod confine;
mod differential;
mod egress;
mod examples;
mod execute;
mod framing;
mod fuzz;
mod hostile;
mod lifecycle;
mod outside;
mod packages;
mod route;
mod sandbox;
mod secrets;
mod soak;
mod support;
mod vault;
mod websocket;
