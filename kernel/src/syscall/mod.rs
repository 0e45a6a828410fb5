//! System calls.
//!
//! | file | what |
//! | --- | --- |
//! | `error` | how a call fails: with a number, or to be made again after a signal |

mod error;

pub use error::{Error, Restart};
