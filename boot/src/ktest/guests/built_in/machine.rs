//! What the guest finds, and how it ends well.

use alloc::string::String;

use hv::vcpu::Stop;

use super::super::guest_test;
use super::Machine;
use crate::ensure;

guest_test!(
    fn guest_boots_by_its_contract_and_says_what_it_has<V>() -> Result<(), String> {
        let mut guest = Machine::<V>::new("hello", 16)?;
        guest.finish()?;
        let printed = guest.printed();
        for part in [
            "memory 8192 KiB",
            "delegated 64 KiB at 0x100000000",
            "store 64 KiB at 0x200000000",
            "hello",
        ] {
            ensure!(printed.contains(part), "no `{part}` in:\n{printed}");
        }
        Ok(())
    }
);

guest_test!(
    fn exit_status_is_the_guests<V>() -> Result<(), String> {
        Machine::<V>::new("leave status=0xfedcba9876543210", 1)?.expect(Stop::Exited(0xfedc_ba98_7654_3210))
    }
);

guest_test!(
    fn command_that_the_guest_does_not_have_is_wrong_usage<V>() -> Result<(), String> {
        let mut guest = Machine::<V>::new("dance", 1)?;
        guest.expect(Stop::Exited(2))?;
        ensure!(
            guest.printed().contains("the guest has no command `dance`"),
            "{}",
            guest.printed()
        );
        Ok(())
    }
);

guest_test!(
    fn guest_that_sleeps_is_woken_by_its_timer<V>() -> Result<(), String> {
        Machine::<V>::new("sleep ms=50", 1)?.finish()
    }
);

guest_test!(
    fn calls_that_make_no_sense_are_refused_by_name<V>() -> Result<(), String> {
        Machine::<V>::new("refusals", 4)?.finish()
    }
);

guest_test!(
    fn workload_comes_to_the_same_result_each_time_and_to_another_with_another_seed<V>() -> Result<(), String>
    {
        let result = |cmdline| {
            let mut guest = Machine::<V>::new(cmdline, 64)?;
            guest.finish()?;
            guest.result()
        };
        let first = result("workload seed=7")?;
        ensure!(first.contains("pages=64") && first.contains("wrong=0"), "{first}");
        ensure!(first == result("workload seed=7")?, "another result than {first}");
        ensure!(
            first != result("workload seed=8")?,
            "the same result with another seed"
        );
        Ok(())
    }
);
