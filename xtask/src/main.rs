//! Builds, runs and tests Faultline.
fn main() {}
