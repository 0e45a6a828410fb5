//! Faultline hypervisor half.
#![no_std]
