//! The real binary on a machine that fails it: a full disk, a disk that refuses, no more file descriptors, a long stop.
//!
//! After each fault the same question: is everything there that was acknowledged? Needs the release build of `motemq`, `cc`
//! and, for the small file system, `unshare` and `nsenter`; `.ci/run` provides them.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that cannot go on must stop at once"
)]

mod disk_full;
mod process;
mod refusing_disk;
mod site;
mod small_disk;

mod external {
    #[test]
    #[ignore = "needs the release build and unshare: run by .ci/run"]
    fn a_full_disk_refuses_what_must_be_stored_and_goes_on_with_the_rest() {
        crate::disk_full::refuses_and_drains();
    }

    #[test]
    #[ignore = "needs the release build and unshare: run by .ci/run"]
    fn a_disk_that_gets_room_again_is_used_without_a_restart() {
        crate::disk_full::accepts_when_there_is_room();
    }

    #[test]
    #[ignore = "needs the release build and unshare: run by .ci/run"]
    fn a_read_only_disk_is_named_at_start() {
        crate::disk_full::names_a_read_only_disk();
    }

    #[test]
    #[ignore = "needs the release build and cc: run by .ci/run"]
    fn a_failed_sync_or_write_ends_acknowledgements_and_the_process() {
        crate::refusing_disk::fails_while_it_runs();
    }

    #[test]
    #[ignore = "needs the release build and cc: run by .ci/run"]
    fn a_failed_sync_or_write_during_recovery_ends_the_process() {
        crate::refusing_disk::fails_while_it_recovers();
    }

    #[test]
    #[ignore = "needs the release build and cc: run by .ci/run"]
    fn short_writes_and_a_moment_without_room_are_waited_out() {
        crate::refusing_disk::recovers_from_what_passes();
    }

    #[test]
    #[ignore = "needs the release build: run by .ci/run"]
    fn without_file_descriptors_who_is_connected_goes_on() {
        crate::process::survives_without_descriptors();
    }

    #[test]
    #[ignore = "needs the release build: run by .ci/run"]
    fn a_stopped_process_goes_on_where_it_was() {
        crate::process::survives_a_stop();
    }
}
