//! The PROXY protocol: who the client is that a proxy connects for (versions 1 and 2).
//!
//! Promises:
//! - Not a byte behind the header is read: TLS, WebSocket or MQTT start there.
//! - The header is required; the first byte that cannot belong to one ends the reading.
//! - Addresses of a version 2 header are read, its further fields (TLVs) skipped; at most [`HEADER_BYTES_MAX`] bytes of it.
//!
//! Whether the sender may be believed is the accept loop's question (`proxy_cidrs`). The time limit is the caller's.

#![deny(clippy::indexing_slicing)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Whom a header names.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Source {
    /// A client.
    Client(SocketAddr),
    /// The proxy itself, to see whether we are alive.
    Proxy,
    /// A client whose address the proxy does not know or tell.
    Unknown,
}

/// There is no usable header.
#[derive(Copy, Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum ProxyError {
    #[error(
        "no PROXY protocol header, which proxy_protocol = true requires: connect through the proxy, and let it send one"
    )]
    Missing,
    #[error("malformed PROXY protocol header: {0}")]
    Malformed(&'static str),
    #[error("the connection ended within the PROXY protocol header")]
    Incomplete,
}

/// Reads the header, and nothing behind it.
pub(crate) async fn read_header<S: AsyncRead + Unpin>(
    socket: &mut S,
) -> Result<Source, ProxyError> {
    let mut header = Vec::with_capacity(V2_HEAD_BYTES);
    loop {
        let more = match examine(&header)? {
            Progress::Done(source) => return Ok(source),
            Progress::Needs(more) => more as u64,
        };
        let read = (&mut *socket).take(more).read_buf(&mut header).await;
        if !matches!(read, Ok(1..)) {
            return Err(ProxyError::Incomplete);
        }
    }
}

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Progress {
    Done(Source),
    /// So many more bytes certainly belong to the header.
    Needs(usize),
}

fn examine(header: &[u8]) -> Result<Progress, ProxyError> {
    let may_become = |start: &[u8]| header.iter().zip(start).all(|(byte, known)| byte == known);
    let (is_v2, is_v1) = (may_become(V2_SIGNATURE), may_become(V1_START));
    match V2_SIGNATURE.len().checked_sub(header.len()) {
        _ if !is_v2 && !is_v1 => Err(ProxyError::Missing),
        // Neither version is as short as this.
        Some(more @ 1..) => Ok(Progress::Needs(more)),
        _ if is_v2 => examine_v2(header),
        _ => examine_v1(header),
    }
}

/// Version 2: signature, command, family, length, addresses, further fields.
fn examine_v2(header: &[u8]) -> Result<Progress, ProxyError> {
    let Some((head, rest)) = header.split_first_chunk::<V2_HEAD_BYTES>() else {
        return Ok(Progress::Needs(V2_HEAD_BYTES - header.len()));
    };
    let [.., command, family, high, low] = *head;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if V2_HEAD_BYTES + length > HEADER_BYTES_MAX {
        return Err(ProxyError::Malformed("it is larger than 4 KiB"));
    }
    let is_local = match command {
        0x20 => true,
        0x21 => false,
        _ => return Err(ProxyError::Malformed("unknown version or command")),
    };
    if rest.len() < length {
        return Ok(Progress::Needs(length - rest.len()));
    }
    if is_local {
        return Ok(Progress::Done(Source::Proxy));
    }
    let source = match family {
        0x11 => addresses::<4>(rest)?.map(|ip| IpAddr::V4(Ipv4Addr::from(ip))),
        0x21 => addresses::<16>(rest)?.map(|ip| IpAddr::V6(Ipv6Addr::from(ip))),
        // Unspecified, or a Unix socket at the proxy.
        0x00 | 0x31 => return Ok(Progress::Done(Source::Unknown)),
        _ => return Err(ProxyError::Malformed("neither TCP nor a Unix socket")),
    };
    Ok(Progress::Done(Source::Client(source.socket())))
}

/// Source address and port of an address block.
struct Endpoint<T> {
    ip: T,
    port: u16,
}

impl<T> Endpoint<T> {
    fn map<U>(self, convert: impl FnOnce(T) -> U) -> Endpoint<U> {
        Endpoint {
            ip: convert(self.ip),
            port: self.port,
        }
    }
}

impl Endpoint<IpAddr> {
    fn socket(self) -> SocketAddr {
        SocketAddr::new(self.ip, self.port)
    }
}

/// Source address, destination address, source port, destination port.
fn addresses<const N: usize>(block: &[u8]) -> Result<Endpoint<[u8; N]>, ProxyError> {
    let short = ProxyError::Malformed("too short for its addresses");
    let (ip, rest) = block.split_first_chunk::<N>().ok_or(short)?;
    let (_, rest) = rest.split_first_chunk::<N>().ok_or(short)?;
    let ([high, low, _, _], _) = rest.split_first_chunk::<4>().ok_or(short)?;
    Ok(Endpoint {
        ip: *ip,
        port: u16::from_be_bytes([*high, *low]),
    })
}

/// Version 1: one line of text.
fn examine_v1(header: &[u8]) -> Result<Progress, ProxyError> {
    let Some(line) = header.strip_suffix(b"\r\n") else {
        if header.len() >= V1_BYTES_MAX {
            return Err(ProxyError::Malformed("the line of version 1 does not end"));
        }
        let ending = if header.last() == Some(&b'\r') { 1 } else { 2 };
        return Ok(Progress::Needs(
            V1_BYTES_MIN.saturating_sub(header.len()).max(ending),
        ));
    };
    let malformed = ProxyError::Malformed("not a line of version 1");
    let line = std::str::from_utf8(line).map_err(|_| malformed)?;
    let mut words = line.split(' ').skip(1);
    let kind = words.next();
    if kind == Some("UNKNOWN") {
        return Ok(Progress::Done(Source::Unknown));
    }
    let [
        Some(source),
        Some(target),
        Some(port),
        Some(target_port),
        None,
    ] = std::array::from_fn(|_| words.next())
    else {
        return Err(malformed);
    };
    let ip: IpAddr = source.parse().map_err(|_| malformed)?;
    let target: IpAddr = target.parse().map_err(|_| malformed)?;
    let port: u16 = port.parse().map_err(|_| malformed)?;
    let _: u16 = target_port.parse().map_err(|_| malformed)?;
    match kind {
        Some("TCP4") if ip.is_ipv4() && target.is_ipv4() => {}
        Some("TCP6") if ip.is_ipv6() && target.is_ipv6() => {}
        _ => return Err(malformed),
    }
    Ok(Progress::Done(Source::Client(SocketAddr::new(ip, port))))
}

const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, command, family and length.
const V2_HEAD_BYTES: usize = 16;
/// A larger header is refused; proxies that pass certificates on stay far below.
const HEADER_BYTES_MAX: usize = 4096;
const V1_START: &[u8] = b"PROXY ";
/// `PROXY UNKNOWN` with its line end.
const V1_BYTES_MIN: usize = 15;
/// The longest line that the specification allows.
const V1_BYTES_MAX: usize = 107;

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{RngExt as _, SeedableRng as _};
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};

    /// Reads a header from bytes that come `step` at a time; what is left is what the next layer would read.
    fn read(bytes: &[u8], step: usize) -> (Result<Source, ProxyError>, usize) {
        struct Slow<'a>(&'a [u8], usize);
        impl AsyncRead for Slow<'_> {
            fn poll_read(
                mut self: Pin<&mut Self>,
                _: &mut Context<'_>,
                buf: &mut tokio::io::ReadBuf<'_>,
            ) -> Poll<std::io::Result<()>> {
                let count = self.1.min(self.0.len()).min(buf.remaining());
                let (now, later) = self.0.split_at(count);
                buf.put_slice(now);
                self.0 = later;
                Poll::Ready(Ok(()))
            }
        }
        let mut slow = Slow(bytes, step);
        let mut header = Box::pin(read_header(&mut slow));
        let Poll::Ready(result) = header
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
        else {
            panic!("nothing waits here");
        };
        drop(header);
        (result, slow.0.len())
    }

    fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
        let mut header = V2_SIGNATURE.to_vec();
        header.extend([command, family]);
        header.extend((block.len() as u16).to_be_bytes());
        header.extend(block);
        header
    }

    /// 192.0.2.7:40000 to 10.0.0.1:8883.
    const TCP4: [u8; 12] = [192, 0, 2, 7, 10, 0, 0, 1, 0x9c, 0x40, 0x22, 0xb3];

    fn client(address: &str) -> Source {
        Source::Client(address.parse().unwrap())
    }

    fn check(header: &[u8], expected: Source) {
        let whole = [header, b"\x10 what follows"].concat();
        for step in [1, 2, 7, 1000] {
            let (source, left) = read(&whole, step);
            assert_eq!(source, Ok(expected), "{step} bytes at a time");
            assert_eq!(left, whole.len() - header.len(), "{step} bytes at a time");
        }
        for cut in 0..header.len() {
            assert_eq!(
                read(&header[..cut], 3).0,
                Err(ProxyError::Incomplete),
                "cut at {cut}"
            );
        }
    }

    #[test]
    fn version_2_names_the_client_and_nothing_behind_it_is_read() {
        check(&v2(0x21, 0x11, &TCP4), client("192.0.2.7:40000"));
        let mut tcp6 = [0; 36];
        tcp6[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
        tcp6[15] = 9;
        tcp6[32..34].copy_from_slice(&40000_u16.to_be_bytes());
        check(&v2(0x21, 0x21, &tcp6), client("[2001:db8::9]:40000"));
        // PP2_TYPE_ALPN and a longer one of a cloud's own.
        let tlvs = [&TCP4[..], &[1, 0, 2, b'h', b'2', 0xea, 0, 200], &[0; 200]].concat();
        check(&v2(0x21, 0x11, &tlvs), client("192.0.2.7:40000"));
    }

    #[test]
    fn version_2_also_says_that_there_is_no_client_or_none_known() {
        check(&v2(0x20, 0x00, &[]), Source::Proxy);
        check(&v2(0x20, 0x11, &TCP4), Source::Proxy);
        check(&v2(0x21, 0x00, &[1, 2, 3]), Source::Unknown);
        check(&v2(0x21, 0x31, &[0; 216]), Source::Unknown);
    }

    #[test]
    fn version_1_is_read_too() {
        check(
            b"PROXY TCP4 192.0.2.7 10.0.0.1 40000 8883\r\n",
            client("192.0.2.7:40000"),
        );
        check(
            b"PROXY TCP6 2001:db8::9 ::1 40000 8883\r\n",
            client("[2001:db8::9]:40000"),
        );
        check(b"PROXY UNKNOWN\r\n", Source::Unknown);
        check(
            b"PROXY UNKNOWN ffff:f:f ffff 65535 65535\r\n",
            Source::Unknown,
        );
    }

    #[test]
    fn without_a_header_the_first_wrong_byte_is_enough() {
        for start in [
            b"\x10\x0c".as_slice(),
            b"\x16",
            b"GET / HTTP/1.1",
            b"PROXX",
            b"\r\n\r\n\0\r\nQUIX",
        ] {
            assert_eq!(examine(start), Err(ProxyError::Missing), "{start:?}");
        }
    }

    #[test]
    fn malformed_headers_are_refused() {
        let refused = |header: &[u8]| {
            let result = read(header, 1000).0;
            assert!(
                matches!(result, Err(ProxyError::Malformed(_))),
                "{header:?}: {result:?}"
            );
        };
        refused(&v2(0x11, 0x11, &TCP4));
        refused(&v2(0x22, 0x11, &TCP4));
        refused(&v2(0x21, 0x12, &TCP4));
        refused(&v2(0x21, 0x11, &TCP4[..11]));
        refused(&v2(0x21, 0x21, &TCP4));
        refused(&v2(0x21, 0x11, &[0; 5000])[..16]);
        refused(b"PROXY TCP4 192.0.2.7 10.0.0.1 40000\r\n");
        refused(b"PROXY TCP4 2001:db8::9 ::1 40000 8883\r\n");
        refused(b"PROXY TCP4 192.0.2.7 10.0.0.1 70000 8883\r\n");
        refused(b"PROXY TCP5 192.0.2.7 10.0.0.1 40000 8883\r\n");
        refused(&[b"PROXY ".as_slice(), &[b'x'; 200]].concat());
    }

    #[test]
    fn random_headers_never_panic_and_stay_within_their_limit() {
        let mut dice = StdRng::seed_from_u64(2);
        for _ in 0..20_000 {
            let mut header = match dice.random_bool(0.5) {
                true => v2(0x21, 0x11, &TCP4),
                false => b"PROXY TCP4 192.0.2.7 10.0.0.1 40000 8883\r\n".to_vec(),
            };
            for _ in 0..dice.random_range(1..5) {
                let at = dice.random_range(6..header.len());
                header[at] = dice.random();
            }
            header.resize(10_000, dice.random());
            let (_, left) = read(&header, 1000);
            assert!(header.len() - left <= HEADER_BYTES_MAX);
        }
    }
}
