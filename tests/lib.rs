//! Tests that boot the image in an emulator.
