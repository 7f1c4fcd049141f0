use super::*;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use std::collections::VecDeque;
use std::task::Waker;

/// A socket that takes and gives as much as its dice say.
#[derive(Debug)]
struct Moody {
    dice: StdRng,
    incoming: VecDeque<u8>,
    outgoing: Vec<u8>,
    is_vectored: bool,
    is_shut: bool,
}

impl Moody {
    fn new(seed: u64) -> Self {
        Self {
            dice: StdRng::seed_from_u64(seed),
            incoming: VecDeque::new(),
            outgoing: Vec::new(),
            is_vectored: seed.is_multiple_of(2),
            is_shut: false,
        }
    }

    fn take(&mut self, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.dice.random_bool(0.3) {
            return Poll::Pending;
        }
        let most = bytes
            .len()
            .min([1, 3, 20, 100_000][self.dice.random_range(0..4)]);
        self.outgoing.extend_from_slice(&bytes[..most]);
        Poll::Ready(Ok(most))
    }
}

impl AsyncRead for Moody {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.incoming.is_empty() && !this.is_shut || this.dice.random_bool(0.2) {
            return Poll::Pending;
        }
        let most = this.dice.random_range(1..=50.min(buf.remaining()));
        for byte in this.incoming.drain(..most.min(this.incoming.len())) {
            buf.put_slice(&[byte]);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Moody {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().take(bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.is_vectored {
            let all: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
            return this.take(&all);
        }
        this.take(&slices[0])
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().is_shut = true;
        Poll::Ready(Ok(()))
    }
}

fn open(seed: u64) -> WebSocket<Moody> {
    WebSocket::new(Moody::new(seed), Vec::new(), 1 << 20, Arc::default())
}

/// Frames of the server: opcode and payload each.
fn frames(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut frames = Vec::new();
    while let [first, second, rest @ ..] = bytes {
        assert!(
            first & 0x80 != 0 && second & 0x80 == 0,
            "whole and not masked"
        );
        let (length, rest) = match second {
            126 => (
                u64::from(u16::from_be_bytes([rest[0], rest[1]])),
                &rest[2..],
            ),
            127 => (
                u64::from_be_bytes(rest[..8].try_into().unwrap()),
                &rest[8..],
            ),
            short => (u64::from(*short), rest),
        };
        let (payload, behind) = rest.split_at(length as usize);
        frames.push((first & 0x0f, payload.to_vec()));
        bytes = behind;
    }
    frames
}

fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode, 0x80 | payload.len() as u8, 1, 2, 3, 4];
    frame.extend(
        payload
            .iter()
            .zip([1, 2, 3, 4].iter().cycle())
            .map(|(b, m)| b ^ m),
    );
    frame
}

#[test]
fn what_is_written_arrives_in_frames_with_pongs_between_them() {
    for seed in 0..100 {
        let mut dice = StdRng::seed_from_u64(seed);
        let mut socket = open(seed);
        let cx = &mut Context::from_waker(Waker::noop());
        let (mut expected, mut pending) = (Vec::<u8>::new(), Vec::new());
        let (mut in_data, mut received) = (Vec::<u8>::new(), Vec::new());
        for _ in 0..300 {
            if dice.random_bool(0.2) {
                let more = vec![dice.random(); dice.random_range(1..70_000)];
                expected.extend_from_slice(&more);
                pending.extend(more);
            }
            if dice.random_bool(0.2) {
                let more = vec![dice.random(); dice.random_range(0..100)];
                socket.socket.incoming.extend(masked(2, &more));
                in_data.extend(more);
                socket.socket.incoming.extend(masked(9, b"are you there"));
            }
            if let Poll::Ready(count) = Pin::new(&mut socket).poll_write(cx, &pending) {
                pending.drain(..count.unwrap());
            }
            let mut bytes = [0; 64];
            let mut read = ReadBuf::new(&mut bytes);
            if Pin::new(&mut socket).poll_read(cx, &mut read).is_ready() {
                received.extend_from_slice(read.filled());
            }
        }
        while !pending.is_empty() {
            if let Poll::Ready(count) = Pin::new(&mut socket).poll_write(cx, &pending) {
                pending.drain(..count.unwrap());
            }
        }
        while !socket.socket.incoming.is_empty() {
            let mut bytes = [0; 64];
            let mut read = ReadBuf::new(&mut bytes);
            if Pin::new(&mut socket).poll_read(cx, &mut read).is_ready() {
                received.extend_from_slice(read.filled());
            }
        }
        while Pin::new(&mut socket).poll_flush(cx).is_pending() || !socket.control.is_empty() {}
        assert!(received == in_data, "seed {seed}");
        let frames = frames(&socket.socket.outgoing);
        let data = frames.iter().filter(|(opcode, _)| *opcode == 2);
        let sent: Vec<u8> = data.flat_map(|(_, payload)| payload.clone()).collect();
        assert!(sent == expected, "seed {seed}");
        let mut others = frames.iter().filter(|(opcode, _)| *opcode != 2);
        assert!(others.all(|frame| *frame == (0xa, b"are you there".to_vec())));
    }
}

#[test]
fn one_write_is_one_frame() {
    let mut socket = open(0);
    let cx = &mut Context::from_waker(Waker::noop());
    let mut rest = vec![7; 100_000];
    while !rest.is_empty() {
        if let Poll::Ready(count) = Pin::new(&mut socket).poll_write(cx, &rest) {
            rest.drain(..count.unwrap());
        }
    }
    let frames = frames(&socket.socket.outgoing);
    assert_eq!(frames.len(), 1);
    assert_eq!(frames[0].1.len(), 100_000);
}

#[test]
fn the_end_is_a_close_frame_that_says_why() {
    let shut = |incoming: &[Vec<u8>]| {
        let mut socket = open(3);
        let cx = &mut Context::from_waker(Waker::noop());
        socket.socket.incoming.extend(incoming.concat());
        let mut bytes = [0; 64];
        while !socket.socket.incoming.is_empty() && socket.decoder.end().is_none() {
            let _ = Pin::new(&mut socket).poll_read(cx, &mut ReadBuf::new(&mut bytes));
        }
        let mut is_over = false;
        for _ in 0..100 {
            is_over |= Pin::new(&mut socket).poll_shutdown(cx).is_ready();
        }
        assert!(is_over && socket.socket.is_shut);
        assert!(matches!(
            Pin::new(&mut socket).poll_write(cx, b"x"),
            Poll::Ready(Err(_))
        ));
        let counters = socket.counters.clone();
        (frames(&socket.socket.outgoing), counters)
    };
    let close = |code: u16| vec![(0x8, code.to_be_bytes().to_vec())];
    assert_eq!(shut(&[]).0, close(1000));
    assert_eq!(shut(&[masked(8, &1001_u16.to_be_bytes())]).0, close(1001));
    assert_eq!(shut(&[masked(8, &[])]).0, [(0x8, Vec::new())]);
    let (sent, counters) = shut(&[masked(1, b"text")]);
    assert_eq!(sent, close(1003));
    assert_eq!(counters.of(Violation::Text), 1);
    assert_eq!(counters.of(Violation::Protocol), 0);
}

#[test]
fn a_connection_at_rest_is_small() {
    // It is one allocation beside the driver's; a buffer in it would cost every idle client.
    assert!(
        size_of::<WebSocket<()>>() <= 256,
        "{}",
        size_of::<WebSocket<()>>()
    );
}
