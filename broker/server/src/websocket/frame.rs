//! WebSocket frames of a client become a byte stream (RFC 6455 section 5).
//!
//! Promises:
//! - Payloads are unmasked in place and moved together, wherever reads cut the frames; nothing waits for the end of a
//!   frame, and nothing but a control frame (125 bytes) is ever kept. MQTT packets may span frames or share one
//!   [MQTT5-6.0.0-2].
//! - The first rule a client breaks ends the stream, with the code that its Close frame will carry; what came before is
//!   still delivered.
//!
//! Does not know: sockets, MQTT, HTTP. Fragments are not put together: their borders mean nothing in a byte stream.

#![deny(clippy::indexing_slicing)]

/// Reads the frames of one client.
#[derive(Debug)]
pub(super) struct Decoder {
    frame_bytes_max: u64,
    /// The head of a frame, as far as it is there.
    head: [u8; HEAD_BYTES_MAX],
    head_length: u8,
    /// The frame whose payload is being read.
    frame: Option<Frame>,
    /// Payload of it that has not come yet.
    left: u64,
    /// Its mask, rotated to the next byte.
    mask: [u8; 4],
    /// A data message has begun and its last fragment has not.
    is_fragmented: bool,
    /// Payload of a control frame.
    control: Vec<u8>,
    ping: Option<Vec<u8>>,
    end: Option<End>,
}

/// Why nothing more is read.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum End {
    /// The client sent Close, with this code.
    Closed(Option<u16>),
    /// It broke a rule.
    Broken(Violation),
}

impl End {
    /// The code of the Close frame to send; `None` sends it without one.
    pub(super) fn code(self) -> Option<u16> {
        match self {
            Self::Closed(code) => code,
            Self::Broken(violation) => Some(violation.code()),
        }
    }
}

/// A rule that a client broke.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Violation {
    /// A text frame [MQTT5-6.0.0-1].
    Text,
    /// A frame that is not masked.
    Unmasked,
    /// A frame larger than `limits.websocket_frame_bytes_max`.
    FrameTooLarge,
    /// Anything else that RFC 6455 forbids.
    Protocol,
}

impl Violation {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Text,
        Self::Unmasked,
        Self::FrameTooLarge,
        Self::Protocol,
    ];

    /// The value of the metric's label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Unmasked => "unmasked",
            Self::FrameTooLarge => "frame_too_large",
            Self::Protocol => "protocol",
        }
    }

    fn code(self) -> u16 {
        match self {
            Self::Text => 1003,
            Self::Unmasked | Self::Protocol => 1002,
            Self::FrameTooLarge => 1009,
        }
    }
}

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Frame {
    Data,
    Close,
    Ping,
    Pong,
}

impl Decoder {
    pub(super) fn new(frame_bytes_max: u64) -> Self {
        Self {
            frame_bytes_max,
            head: [0; HEAD_BYTES_MAX],
            head_length: 0,
            frame: None,
            left: 0,
            mask: [0; 4],
            is_fragmented: false,
            control: Vec::new(),
            ping: None,
            end: None,
        }
    }

    /// Why nothing more is read, once that is so.
    pub(super) fn end(&self) -> Option<End> {
        self.end
    }

    /// The payload of the last Ping that has not been answered.
    pub(super) fn take_ping(&mut self) -> Option<Vec<u8>> {
        self.ping.take()
    }

    /// Takes what was read; the data in it is then at the start of `bytes`, so many bytes.
    pub(super) fn decode(&mut self, bytes: &mut [u8]) -> usize {
        let (mut read, mut kept) = (0, 0);
        while self.end.is_none() {
            let Some(frame) = self.frame else {
                let Some(byte) = bytes.get(read) else { break };
                read += 1;
                if let Err(violation) = self.handle_head(*byte) {
                    self.end = Some(End::Broken(violation));
                }
                continue;
            };
            let here = bytes.len() - read;
            let count = usize::try_from(self.left).map_or(here, |left| left.min(here));
            if frame == Frame::Data {
                bytes.copy_within(read..read + count, kept);
                unmask(bytes.get_mut(kept..kept + count), &mut self.mask);
                kept += count;
            } else {
                let start = self.control.len();
                let payload = bytes.get(read..read + count).unwrap_or_default();
                self.control.extend_from_slice(payload);
                unmask(self.control.get_mut(start..), &mut self.mask);
            }
            read += count;
            self.left -= count as u64;
            if self.left > 0 {
                break;
            }
            self.end_frame(frame);
        }
        kept
    }

    /// Adds a byte to the head of a frame; when it is complete, the payload begins.
    fn handle_head(&mut self, byte: u8) -> Result<(), Violation> {
        if let Some(place) = self.head.get_mut(usize::from(self.head_length)) {
            *place = byte;
        }
        self.head_length += 1;
        let [first, second, extended @ ..] = self.head;
        match self.head_length {
            1 => return self.check_first(first),
            2 if second & MASKED == 0 => return Err(Violation::Unmasked),
            _ => {}
        }
        let [a, b, c, d, e, f, g, h, ..] = extended;
        let (length_bytes, length) = match second & !MASKED {
            126 => (2, u64::from(u16::from_be_bytes([a, b]))),
            127 => (8, u64::from_be_bytes([a, b, c, d, e, f, g, h])),
            short => (0, u64::from(short)),
        };
        if usize::from(self.head_length) < 2 + length_bytes + self.mask.len() {
            return Ok(());
        }
        let is_control = first & CONTROL != 0;
        if is_control && length > CONTROL_BYTES_MAX || length >> 63 != 0 {
            return Err(Violation::Protocol);
        }
        if length > self.frame_bytes_max && !is_control {
            return Err(Violation::FrameTooLarge);
        }
        for (place, byte) in self.mask.iter_mut().zip(extended.iter().skip(length_bytes)) {
            *place = *byte;
        }
        let frame = match first & OPCODE {
            0x8 => Frame::Close,
            0x9 => Frame::Ping,
            0xa => Frame::Pong,
            _ => Frame::Data,
        };
        if !is_control {
            self.is_fragmented = first & FINAL == 0;
        }
        self.head_length = 0;
        self.left = length;
        self.frame = Some(frame);
        Ok(())
    }

    /// Final flag, reserved bits and opcode: no extension was agreed on, and control frames stay whole.
    fn check_first(&self, first: u8) -> Result<(), Violation> {
        let is_final = first & FINAL != 0;
        match first & (RESERVED | OPCODE) {
            0x0 if self.is_fragmented => Ok(()),
            0x2 if !self.is_fragmented => Ok(()),
            0x1 => Err(Violation::Text),
            0x8..=0xa if is_final => Ok(()),
            _ => Err(Violation::Protocol),
        }
    }

    fn end_frame(&mut self, frame: Frame) {
        self.frame = None;
        let control = std::mem::take(&mut self.control);
        match frame {
            Frame::Data | Frame::Pong => {}
            Frame::Ping => self.ping = Some(control),
            Frame::Close => self.end = Some(closed(&control)),
        }
    }
}

/// What a Close frame says: nothing, or a code and a text.
fn closed(payload: &[u8]) -> End {
    let Some((code, reason)) = payload.split_first_chunk() else {
        return match payload.is_empty() {
            true => End::Closed(None),
            false => End::Broken(Violation::Protocol),
        };
    };
    let code = u16::from_be_bytes(*code);
    let is_allowed = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
    if !is_allowed || std::str::from_utf8(reason).is_err() {
        return End::Broken(Violation::Protocol);
    }
    End::Closed(Some(code))
}

/// Removes the mask and turns it to where the next byte needs it.
fn unmask(payload: Option<&mut [u8]>, mask: &mut [u8; 4]) {
    let (words, rest) = payload.unwrap_or_default().as_chunks_mut::<8>();
    let [a, b, c, d] = *mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
    mask.rotate_left(rest.len() % 4);
}

/// The head of a binary frame of ours: whole, and not masked.
pub(super) fn binary_head(length: usize) -> ([u8; 10], u8) {
    let mut head = [0; 10];
    let [first, second, extended @ ..] = &mut head;
    *first = FINAL | 0x2;
    let (short, length_bytes) = match length as u64 {
        short @ 0..126 => (short as u8, 0),
        126..0x1_0000 => (126, 2),
        _ => (127, 8),
    };
    *second = short;
    let length = (length as u64).to_be_bytes();
    for (place, byte) in extended
        .iter_mut()
        .zip(length.iter().skip(length.len() - length_bytes))
    {
        *place = *byte;
    }
    (head, 2 + length_bytes as u8)
}

/// A Pong with the payload of its Ping.
pub(super) fn pong(payload: &[u8]) -> Vec<u8> {
    control(0xa, payload)
}

/// A Close.
pub(super) fn close(code: Option<u16>) -> Vec<u8> {
    match code {
        Some(code) => control(0x8, &code.to_be_bytes()),
        None => control(0x8, &[]),
    }
}

fn control(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![FINAL | opcode, payload.len() as u8];
    frame.extend_from_slice(payload);
    frame
}

const FINAL: u8 = 0x80;
const RESERVED: u8 = 0x70;
const OPCODE: u8 = 0x0f;
const CONTROL: u8 = 0x08;
const MASKED: u8 = 0x80;
/// Opcode, length in its longest form, mask.
const HEAD_BYTES_MAX: usize = 14;
const CONTROL_BYTES_MAX: u64 = 125;

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{RngExt as _, SeedableRng as _};

    /// One frame as a client sends it.
    fn masked(first: u8, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
        let (head, length) = binary_head(payload.len());
        let mut frame = head[..usize::from(length)].to_vec();
        frame[0] = first;
        frame[1] |= MASKED;
        frame.extend(mask);
        frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(b, m)| b ^ m));
        frame
    }

    fn decode(bytes: &[u8]) -> (Vec<u8>, Decoder) {
        let mut decoder = Decoder::new(MAX);
        let mut bytes = bytes.to_vec();
        let kept = decoder.decode(&mut bytes);
        bytes.truncate(kept);
        (bytes, decoder)
    }

    fn check_end(bytes: &[u8], expected: Option<End>) {
        assert_eq!(decode(bytes).1.end(), expected, "{bytes:02x?}");
    }

    fn check_broken(bytes: &[u8], expected: Violation) {
        check_end(bytes, Some(End::Broken(expected)));
    }

    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    const MAX: u64 = 1 << 20;

    #[test]
    fn the_examples_of_the_rfc_read() {
        // RFC 6455 section 5.7: a masked "Hello", here as binary; and a masked Ping.
        let hello = [
            0x82, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58,
        ];
        assert_eq!(decode(&hello).0, b"Hello");
        let mut ping = hello;
        ping[0] = 0x89;
        let (data, mut decoder) = decode(&ping);
        assert!(data.is_empty());
        assert_eq!(decoder.take_ping().unwrap(), b"Hello");
        assert_eq!(pong(b"Hello"), b"\x8a\x05Hello");
    }

    #[test]
    fn a_stream_in_frames_of_any_kind_comes_out_the_same_wherever_it_is_cut() {
        // D6; [MQTT5-6.0.0-2]: packets are not aligned on frames.
        for seed in 0..120 {
            let mut dice = StdRng::seed_from_u64(seed);
            let (mut wire, mut expected, mut pings) = (Vec::new(), Vec::new(), Vec::new());
            for _ in 0..dice.random_range(1..12) {
                let parts = dice.random_range(1..4);
                for part in 0..parts {
                    let length = match dice.random_range(0..5) {
                        0 => 0,
                        1 => dice.random_range(120..130),
                        2 => dice.random_range(65_530..65_540),
                        _ => dice.random_range(1..300),
                    };
                    let payload: Vec<u8> = (0..length).map(|_| dice.random()).collect();
                    let opcode = if part == 0 { 2 } else { 0 };
                    let last = if part + 1 == parts { FINAL } else { 0 };
                    wire.extend(masked(opcode | last, &payload, dice.random()));
                    expected.extend(payload);
                    if dice.random_bool(0.3) {
                        let ping = vec![dice.random(); dice.random_range(0..126)];
                        wire.extend(masked(0x89, &ping, dice.random()));
                        pings.push(ping);
                    }
                }
            }
            let mut decoder = Decoder::new(MAX);
            let (mut out, mut rest) = (Vec::new(), wire.as_mut_slice());
            let mut last_ping = None;
            while !rest.is_empty() {
                let most = if dice.random_bool(0.5) { 20 } else { 70_000 };
                let cut = dice.random_range(1..=most.min(rest.len()));
                let (piece, behind) = rest.split_at_mut(cut);
                let kept = decoder.decode(piece);
                out.extend_from_slice(&piece[..kept]);
                last_ping = decoder.take_ping().or(last_ping);
                rest = behind;
            }
            assert!(out == expected, "seed {seed}");
            assert_eq!(last_ping.as_ref(), pings.last(), "seed {seed}");
            assert_eq!(decoder.end(), None, "seed {seed}");
        }
    }

    #[test]
    fn random_bytes_never_panic_and_never_grow() {
        let mut dice = StdRng::seed_from_u64(1);
        for _ in 0..20_000 {
            let mut bytes: Vec<u8> = (0..dice.random_range(1..200))
                .map(|_| dice.random())
                .collect();
            // Past the first hurdles, more often than not.
            bytes[0] = [0x82, 0x02, 0x89, 0x88, 0x8a, bytes[0]][dice.random_range(0..6)];
            if let Some(second) = bytes.get_mut(1) {
                *second |= MASKED;
            }
            let length = bytes.len();
            let mut decoder = Decoder::new(MAX);
            assert!(decoder.decode(&mut bytes) <= length);
            assert!(decoder.control.len() <= 125);
        }
    }

    #[test]
    fn only_binary_messages_are_data() {
        // [MQTT5-6.0.0-1] [MQTT3-6.0-1]: anything else must close the connection.
        check_broken(&masked(0x81, b"text", MASK), Violation::Text);
        assert_eq!(Violation::Text.code(), 1003);
        for reserved in [0x83, 0x87, 0x8b, 0x8f] {
            check_broken(&masked(reserved, b"", MASK), Violation::Protocol);
        }
    }

    #[test]
    fn what_came_before_a_mistake_is_still_delivered() {
        let bytes = [masked(0x82, b"good", MASK), masked(0x81, b"bad", MASK)].concat();
        let (data, decoder) = decode(&bytes);
        assert_eq!(data, b"good");
        assert_eq!(decoder.end(), Some(End::Broken(Violation::Text)));
    }

    #[test]
    fn frames_without_a_mask_are_refused() {
        check_broken(&[0x82, 0x00], Violation::Unmasked);
        check_broken(b"\x82\x05Hello", Violation::Unmasked);
    }

    #[test]
    fn a_frame_beyond_the_limit_is_refused_by_its_head() {
        let head = |length: u64| {
            let mut head = vec![0x82, 0xff];
            head.extend(length.to_be_bytes());
            head.extend(MASK);
            head
        };
        check_end(&head(MAX), None);
        check_broken(&head(MAX + 1), Violation::FrameTooLarge);
        check_broken(&head(1 << 63), Violation::Protocol);
        assert_eq!(Violation::FrameTooLarge.code(), 1009);
    }

    #[test]
    fn reserved_bits_and_fragments_out_of_place_are_refused() {
        for first in [0xc2, 0xa2, 0x92, 0x47] {
            check_broken(&masked(first, b"", MASK), Violation::Protocol);
        }
        // A continuation of nothing; a new message inside another; a control frame in pieces, or too long.
        check_broken(&masked(0x80, b"", MASK), Violation::Protocol);
        let nested = [masked(0x02, b"a", MASK), masked(0x82, b"b", MASK)].concat();
        check_broken(&nested, Violation::Protocol);
        check_broken(&masked(0x09, b"", MASK), Violation::Protocol);
        check_broken(&masked(0x89, &[0; 126], MASK), Violation::Protocol);
        // A text continuation of a binary message is one of binary.
        let whole = [masked(0x02, b"a", MASK), masked(0x80, b"b", MASK)].concat();
        assert_eq!(decode(&whole).0, b"ab");
    }

    #[test]
    fn a_close_is_answered_with_its_code() {
        check_end(&masked(0x88, b"", MASK), Some(End::Closed(None)));
        let code = |code: u16| masked(0x88, &code.to_be_bytes(), MASK);
        check_end(&code(1000), Some(End::Closed(Some(1000))));
        check_end(&code(4000), Some(End::Closed(Some(4000))));
        for wrong in [0, 999, 1004, 1005, 1006, 1015, 2999, 5000] {
            check_broken(&code(wrong), Violation::Protocol);
        }
        check_broken(&masked(0x88, b"\x03", MASK), Violation::Protocol);
        check_broken(&masked(0x88, b"\x03\xe8\xff", MASK), Violation::Protocol);
        let (data, _) = decode(&[masked(0x88, b"", MASK), masked(0x82, b"late", MASK)].concat());
        assert!(data.is_empty());
    }
}
