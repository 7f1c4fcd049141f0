//! Waits shorter than the poller's millisecond, where the system has a timer that it can watch.

#[cfg(target_os = "linux")]
pub(super) use linux::Timer;
#[cfg(not(target_os = "linux"))]
pub(super) use portable::Timer;

#[cfg(target_os = "linux")]
mod linux {
    use mio::unix::SourceFd;
    use mio::{Interest, Registry, Token};
    use rustix::fd::{AsRawFd, OwnedFd};
    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    };
    use std::io;
    use std::time::Duration;

    /// Ends a poller's wait to the microsecond.
    pub(in crate::bench) struct Timer {
        descriptor: OwnedFd,
    }

    impl Timer {
        pub(in crate::bench) fn new(registry: &Registry, token: Token) -> io::Result<Self> {
            let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
            let descriptor = timerfd_create(TimerfdClockId::Monotonic, flags)?;
            let mut source = SourceFd(&descriptor.as_raw_fd());
            registry.register(&mut source, token, Interest::READABLE)?;
            Ok(Self { descriptor })
        }

        /// Makes an event in so many nanoseconds, 1 to 999,999,999; what the poller itself has to wait at most.
        ///
        /// It is set anew for each wait: a timer that was set on another core than this one wakes us 10 us later.
        pub(in crate::bench) fn set(&mut self, wait_ns: u64) -> Duration {
            let never = Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            };
            let once = Itimerspec {
                it_interval: never,
                it_value: Timespec {
                    tv_nsec: wait_ns.try_into().unwrap_or(1),
                    ..never
                },
            };
            let wait = Duration::from_nanos(wait_ns);
            match timerfd_settime(&self.descriptor, TimerfdTimerFlags::empty(), &once) {
                // The poller's own timeout, which rounds up to a millisecond, is the second line.
                Ok(_) => wait + Duration::from_millis(1),
                Err(_) => wait,
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod portable {
    use mio::{Registry, Token};
    use std::io;
    use std::time::Duration;

    /// The poller's own timeout has to do.
    pub(in crate::bench) struct Timer;

    impl Timer {
        pub(in crate::bench) fn new(_: &Registry, _: Token) -> io::Result<Self> {
            Ok(Self)
        }

        pub(in crate::bench) fn set(&mut self, wait_ns: u64) -> Duration {
            Duration::from_nanos(wait_ns)
        }
    }
}
