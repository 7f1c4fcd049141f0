//! What the kernel knows of a TCP connection: `getsockopt(TCP_INFO)`, the one `unsafe` call of the workspace.
//!
//! Promises:
//! - The kernel writes into an array of bytes, as many as it says at most; no pointer leaves the call. The numbers are taken from the
//!   array at the places that `linux/tcp.h` gives them (a stable interface that grows at its end), checked against `libc` where it knows them.
//! - What an older kernel does not tell is `None`.
//!
//! Does not know: who asks, other systems (there it answers "unsupported").

use std::io;
use std::os::fd::BorrowedFd;

/// Numbers of one connection.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct TcpInfo {
    /// Smoothed round trip, in microseconds.
    pub rtt_us: u32,
    /// Its mean deviation, in microseconds.
    pub rttvar_us: u32,
    /// Segments that were sent again, since the start.
    pub retransmits: u32,
    /// Segments that are thought to be lost now.
    pub lost: u32,
    /// Bytes that came in, each once.
    pub bytes_in: Option<u64>,
    /// Bytes that were sent, each once.
    pub bytes_out: Option<u64>,
    /// Bytes that were sent again.
    pub bytes_again: Option<u64>,
    /// Segments that came in.
    pub segments_in: Option<u32>,
    /// Segments that were sent.
    pub segments_out: Option<u32>,
    /// Each segment carries timestamps, twelve bytes.
    pub has_timestamps: bool,
}

/// Asks about `socket`, which must be a TCP socket.
///
/// # Errors
/// When it is none, or the system has no such call.
#[cfg(target_os = "linux")]
pub fn tcp_info(socket: BorrowedFd<'_>) -> io::Result<TcpInfo> {
    use std::os::fd::AsRawFd;
    let mut bytes = [0_u8; AREA_BYTES];
    let mut length = libc::socklen_t::try_from(AREA_BYTES).unwrap_or(0);
    #[expect(unsafe_code, reason = "the standard library has no getsockopt")]
    // SAFETY: the descriptor is open while it is borrowed; `bytes` and `length` are valid for writes and live beyond the call; the kernel
    // writes at most `length` bytes to `bytes`, which has so many; any bytes are a valid `[u8]`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            bytes.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    let told = bytes.get(..length as usize).unwrap_or(&bytes);
    read(told).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

/// Asks about `socket`, which must be a TCP socket.
///
/// # Errors
/// Always: this system has no such call.
#[cfg(not(target_os = "linux"))]
pub fn tcp_info(_: BorrowedFd<'_>) -> io::Result<TcpInfo> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Takes the numbers from what the kernel wrote.
#[cfg_attr(
    not(target_os = "linux"),
    expect(dead_code, reason = "nothing to read")
)]
fn read(bytes: &[u8]) -> Option<TcpInfo> {
    let u32_at = |place: usize| {
        let bytes = bytes.get(place..)?.first_chunk()?;
        Some(u32::from_ne_bytes(*bytes))
    };
    let u64_at = |place: usize| {
        let bytes = bytes.get(place..)?.first_chunk()?;
        Some(u64::from_ne_bytes(*bytes))
    };
    let (sent, again) = (u64_at(place::BYTES_SENT), u64_at(place::BYTES_RETRANS));
    Some(TcpInfo {
        rtt_us: u32_at(place::RTT)?,
        rttvar_us: u32_at(place::RTTVAR)?,
        retransmits: u32_at(place::TOTAL_RETRANS)?,
        lost: u32_at(place::LOST)?,
        bytes_in: u64_at(place::BYTES_RECEIVED),
        bytes_out: sent
            .zip(again)
            .map(|(sent, again)| sent.saturating_sub(again))
            .or_else(|| u64_at(place::BYTES_ACKED)),
        bytes_again: again,
        segments_in: u32_at(place::SEGS_IN),
        segments_out: u32_at(place::SEGS_OUT),
        has_timestamps: bytes.get(place::OPTIONS)? & TIMESTAMPS != 0,
    })
}

/// Where `struct tcp_info` of `linux/tcp.h` has its fields.
mod place {
    pub(super) const OPTIONS: usize = 5;
    pub(super) const LOST: usize = 32;
    pub(super) const RTT: usize = 68;
    pub(super) const RTTVAR: usize = 72;
    pub(super) const TOTAL_RETRANS: usize = 100;
    pub(super) const BYTES_ACKED: usize = 120;
    pub(super) const BYTES_RECEIVED: usize = 128;
    pub(super) const SEGS_OUT: usize = 136;
    pub(super) const SEGS_IN: usize = 140;
    /// Since Linux 4.19, as what follows.
    pub(super) const BYTES_SENT: usize = 200;
    pub(super) const BYTES_RETRANS: usize = 208;
}

/// `TCPI_OPT_TIMESTAMPS`.
const TIMESTAMPS: u8 = 1;
/// More than the structure has so far; the kernel writes what fits.
#[cfg(target_os = "linux")]
const AREA_BYTES: usize = 512;

#[cfg(all(target_os = "linux", target_env = "gnu"))]
const _: () = {
    use std::mem::offset_of;
    assert!(offset_of!(libc::tcp_info, tcpi_options) == place::OPTIONS);
    assert!(offset_of!(libc::tcp_info, tcpi_lost) == place::LOST);
    assert!(offset_of!(libc::tcp_info, tcpi_rtt) == place::RTT);
    assert!(offset_of!(libc::tcp_info, tcpi_rttvar) == place::RTTVAR);
    assert!(offset_of!(libc::tcp_info, tcpi_total_retrans) == place::TOTAL_RETRANS);
    assert!(offset_of!(libc::tcp_info, tcpi_bytes_acked) == place::BYTES_ACKED);
    assert!(offset_of!(libc::tcp_info, tcpi_bytes_received) == place::BYTES_RECEIVED);
    assert!(offset_of!(libc::tcp_info, tcpi_segs_out) == place::SEGS_OUT);
    assert!(offset_of!(libc::tcp_info, tcpi_segs_in) == place::SEGS_IN);
    assert!(offset_of!(libc::tcp_info, tcpi_bytes_sent) == place::BYTES_SENT);
    assert!(offset_of!(libc::tcp_info, tcpi_bytes_retrans) == place::BYTES_RETRANS);
};

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;

    #[test]
    fn the_bytes_of_both_directions_are_those_that_were_sent() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        near.write_all(&[1; 3000]).unwrap();
        far.read_exact(&mut [0; 3000]).unwrap();
        far.write_all(&[2; 70]).unwrap();
        near.read_exact(&mut [0; 70]).unwrap();
        let near = tcp_info(near.as_fd()).unwrap();
        let far = tcp_info(far.as_fd()).unwrap();
        assert_eq!((near.bytes_out, near.bytes_in), (Some(3000), Some(70)));
        assert_eq!((far.bytes_out, far.bytes_in), (Some(70), Some(3000)));
        // SYN, its acknowledgement and the data.
        assert!(near.segments_out.unwrap() >= 3 && near.segments_in.unwrap() >= 2);
        assert!(near.rtt_us > 0 && near.rtt_us < 10_000_000);
        assert_eq!((near.retransmits, near.lost), (0, 0));
    }

    #[test]
    fn another_kind_of_socket_is_an_error() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(tcp_info(socket.as_fd()).is_err());
    }

    #[test]
    fn what_an_older_kernel_does_not_tell_is_none() {
        let told = read(&[1; 104]).unwrap();
        assert_eq!(
            (told.bytes_in, told.bytes_out, told.segments_in),
            (None, None, None)
        );
        let told = read(&[0; 192]).unwrap();
        assert_eq!((told.bytes_out, told.bytes_again), (Some(0), None));
        assert_eq!(read(&[0; 60]), None);
    }
}
