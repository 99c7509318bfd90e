//! What a gossipsub message of a peer is about, before the library sees it.
//!
//! The library takes names of topics as a peer makes them up, which has filled memories (GHSA-g3g5-x568-qvqx,
//! GHSA-vrx6-jcp8-vm7m), and remembers ten thousand message ids a peer, of any length. Nodes of this program send one thing
//! in each message, about one topic, with ids of one length; nothing else is handed on.

use asynchronous_codec::Decoder;
use bytes::{Buf as _, BytesMut};
use std::{io, sync::Arc};

/// Length of a message id.
pub(super) const ID_BYTES: usize = 32;
/// Most message ids in one message.
pub(super) const IDS_MAX: usize = 128;
/// Longest head of a frame: its length as a varint. More than four bytes are more than any frame has.
const HEAD_BYTES_MAX: usize = 4;

/// What a message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum About {
    /// This network's topic, or nothing that is remembered.
    Us,
    /// Another topic: the peer is of another network or version.
    Others,
}

/// Why a stream is not read any further.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    /// It has ended.
    #[error(transparent)]
    Stream(#[from] io::Error),
    /// No node of this program sends that.
    #[error("{0}")]
    Violation(&'static str),
}

type Checked<T> = Result<T, &'static str>;

/// A protocol buffer's field.
enum Field<'a> {
    Bytes(&'a [u8]),
    Number,
}

fn varint(bytes: &mut &[u8]) -> Checked<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first().ok_or("ends within a number")?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err("a number of more than 64 bits")
}

fn take<'a>(bytes: &mut &'a [u8], count: u64) -> Checked<&'a [u8]> {
    let count = usize::try_from(count).ok().filter(|count| *count <= bytes.len()).ok_or("ends within a field")?;
    let (taken, rest) = bytes.split_at(count);
    *bytes = rest;
    Ok(taken)
}

/// Calls `look` with the number and value of each field.
fn fields<'a>(mut bytes: &'a [u8], mut look: impl FnMut(u64, Field<'a>) -> Checked<()>) -> Checked<()> {
    while !bytes.is_empty() {
        let tag = varint(&mut bytes)?;
        let field = match tag & 7 {
            0 => varint(&mut bytes).map(|_| Field::Number)?,
            1 => take(&mut bytes, 8).map(|_| Field::Number)?,
            2 => {
                let length = varint(&mut bytes)?;
                Field::Bytes(take(&mut bytes, length)?)
            }
            5 => take(&mut bytes, 4).map(|_| Field::Number)?,
            _ => return Err("a field of an unknown kind"),
        };
        look(tag >> 3, field)?;
    }
    Ok(())
}

/// Counts, and refuses a second one.
fn once(count: &mut usize, problem: &'static str) -> Checked<()> {
    *count += 1;
    if *count > 1 { Err(problem) } else { Ok(()) }
}

struct Screen<'a> {
    topic: &'a [u8],
    about: About,
    /// Subscriptions, messages and control messages of each kind, of which a message has one.
    things: usize,
    ids: usize,
}

impl<'a> Screen<'a> {
    /// One part that names its topic in field `number`; protocol buffers let a later one take an earlier one's place.
    fn topic_of(&mut self, part: &'a [u8], number: u64) -> Checked<()> {
        let mut named = None;
        fields(part, |field, value| {
            if let (true, Field::Bytes(name)) = (field == number, value) {
                named = Some(name);
            }
            Ok(())
        })?;
        if named != Some(self.topic) {
            self.about = About::Others;
        }
        Ok(())
    }

    fn ids_of(&mut self, part: &[u8], number: u64) -> Checked<()> {
        fields(part, |field, value| match value {
            Field::Bytes(id) if field == number => {
                self.ids += 1;
                match id.len() == ID_BYTES && self.ids <= IDS_MAX {
                    true => Ok(()),
                    false => Err("message ids of another length, or too many"),
                }
            }
            _ => Ok(()),
        })
    }

    fn control(&mut self, control: &'a [u8]) -> Checked<()> {
        let mut things = 0;
        fields(control, |field, value| {
            let Field::Bytes(part) = value else { return Ok(()) };
            match field {
                1..=6 => once(&mut things, "several control messages at once")?,
                _ => return Ok(()),
            }
            match field {
                // IHAVE.
                1 => {
                    self.topic_of(part, 1)?;
                    self.ids_of(part, 2)
                }
                // IWANT and IDONTWANT.
                2 | 5 => self.ids_of(part, 1),
                // GRAFT and PRUNE.
                3 | 4 => self.topic_of(part, 1),
                _ => Ok(()),
            }
        })
    }
}

/// Looks at one message: `RPC` in libp2p's `pubsub` and `gossipsub` specifications.
pub(super) fn look(rpc: &[u8], topic: &[u8]) -> Checked<About> {
    let mut screen = Screen { topic, about: About::Us, things: 0, ids: 0 };
    fields(rpc, |field, value| {
        let Field::Bytes(part) = value else { return Ok(()) };
        if (1..=3).contains(&field) {
            once(&mut screen.things, "several things in one message")?;
        }
        match field {
            // A subscription, a message, control.
            1 => screen.topic_of(part, 2),
            2 => screen.topic_of(part, 4),
            3 => screen.control(part),
            _ => Ok(()),
        }
    })?;
    Ok(screen.about)
}

/// A frame that was read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame<T> {
    /// Its length.
    pub(super) bytes: usize,
    /// None of one that is about another topic.
    pub(super) message: Option<T>,
}

/// Hands to `inner`, the library's decoder, one frame at a time, and only those that are about this network's topic.
pub(super) struct Screened<D> {
    pub(super) inner: D,
    pub(super) topic: Arc<str>,
    pub(super) bytes_max: usize,
}

impl<D: Decoder> Decoder for Screened<D> {
    type Item = Frame<D::Item>;
    type Error = Broken;

    fn decode(&mut self, bytes: &mut BytesMut) -> Result<Option<Self::Item>, Broken> {
        let Some(head) = bytes.iter().take(HEAD_BYTES_MAX).position(|byte| byte & 0x80 == 0) else {
            return if bytes.len() < HEAD_BYTES_MAX {
                Ok(None)
            } else {
                Err(Broken::Violation("a frame above the limit"))
            };
        };
        let length = varint(&mut &bytes[..=head]).map_err(Broken::Violation)?;
        let whole = usize::try_from(length).unwrap_or(usize::MAX).saturating_add(head + 1);
        if whole > self.bytes_max {
            return Err(Broken::Violation("a frame above the limit"));
        }
        if bytes.len() < whole {
            return Ok(None);
        }
        match look(&bytes[head + 1..whole], self.topic.as_bytes()).map_err(Broken::Violation)? {
            About::Others => {
                bytes.advance(whole);
                Ok(Some(Frame { bytes: whole, message: None }))
            }
            About::Us => match self.inner.decode(&mut bytes.split_to(whole)) {
                Ok(Some(message)) => Ok(Some(Frame { bytes: whole, message: Some(message) })),
                _ => Err(Broken::Violation("not a gossipsub message")),
            },
        }
    }
}

/// Takes a whole frame as it is.
struct Whole;

impl Decoder for Whole {
    type Item = Vec<u8>;
    type Error = io::Error;

    fn decode(&mut self, frame: &mut BytesMut) -> io::Result<Option<Vec<u8>>> {
        Ok(Some(frame.split().to_vec()))
    }
}

/// For `testnet/fuzz`: the frames that the library would see of a stream that ends after these bytes, each with its head,
/// and whether the stream was given up for something that no node sends.
pub(crate) fn screened(stream: &[u8], topic: &str, bytes_max: usize) -> (Vec<Vec<u8>>, bool) {
    let mut decoder = Screened { inner: Whole, topic: topic.into(), bytes_max };
    let (mut buffer, mut frames) = (BytesMut::from(stream), Vec::new());
    loop {
        match decoder.decode(&mut buffer) {
            Ok(Some(frame)) => frames.extend(frame.message),
            Ok(None) => return (frames, false),
            Err(_) => return (frames, true),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TOPIC: &[u8] = b"/ours";

    /// A field of bytes.
    fn bytes(number: u8, value: &[u8]) -> Vec<u8> {
        let mut length = value.len();
        let mut out = vec![number << 3 | 2];
        while length >= 0x80 {
            out.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
            length >>= 7;
        }
        out.push(u8::try_from(length).unwrap());
        [&out, value].concat()
    }

    fn control(kind: u8, part: &[u8]) -> Vec<u8> {
        bytes(3, &bytes(kind, part))
    }

    fn id(length: usize) -> Vec<u8> {
        vec![7; length]
    }

    #[test]
    fn each_thing_that_a_node_sends_is_let_through() {
        let ihave = [bytes(1, TOPIC), bytes(2, &id(32)), bytes(2, &id(32))].concat();
        let prune = [bytes(1, TOPIC), vec![3 << 3, 60]].concat();
        for rpc in [
            Vec::new(),
            bytes(1, &[vec![1 << 3, 1], bytes(2, TOPIC), vec![3 << 3, 0, 4 << 3, 0]].concat()),
            bytes(2, &[bytes(1, b"author"), bytes(2, &id(100_000)), bytes(4, TOPIC), bytes(5, &id(64))].concat()),
            control(1, &ihave),
            control(2, &bytes(1, &id(32))),
            control(3, &bytes(1, TOPIC)),
            control(4, &prune),
            control(5, &bytes(1, &id(32))),
            control(6, &[]),
            // What a later version may add.
            [bytes(10, b"unknown"), vec![11 << 3, 1]].concat(),
        ] {
            assert_eq!(look(&rpc, TOPIC), Ok(About::Us), "{rpc:02x?}");
        }
    }

    #[test]
    fn what_is_about_another_topic_is_told_apart() {
        let another = b"/theirs";
        for rpc in [
            bytes(1, &bytes(2, another)),
            bytes(2, &bytes(4, another)),
            bytes(2, &bytes(2, b"without a topic")),
            control(1, &bytes(1, another)),
            control(3, &bytes(1, another)),
            control(4, &bytes(1, another)),
            // The last one counts.
            control(4, &[bytes(1, TOPIC), bytes(1, another)].concat()),
        ] {
            assert_eq!(look(&rpc, TOPIC), Ok(About::Others), "{rpc:02x?}");
        }
    }

    #[test]
    fn what_no_node_sends_is_refused() {
        let graft = control(3, &bytes(1, TOPIC));
        let many = bytes(1, &id(32)).repeat(IDS_MAX + 1);
        for rpc in [
            graft.repeat(2),
            [bytes(2, &bytes(4, TOPIC)), graft.clone()].concat(),
            bytes(3, &bytes(3, &bytes(1, TOPIC)).repeat(2)),
            control(5, &bytes(1, &id(31))),
            control(2, &bytes(1, &id(1000))),
            control(5, &many),
            graft[..graft.len() - 1].to_vec(),
            vec![3 << 3 | 3],
            vec![0x80; 11],
        ] {
            assert!(look(&rpc, TOPIC).is_err(), "{rpc:02x?}");
        }
    }

    fn decoder(bytes_max: usize) -> Screened<Whole> {
        Screened { inner: Whole, topic: "/ours".into(), bytes_max }
    }

    #[test]
    fn frames_are_cut_from_the_stream_however_it_arrives() {
        let ours = control(3, &bytes(1, TOPIC));
        let theirs = control(3, &bytes(1, b"/theirs"));
        let frame = |rpc: &[u8]| [vec![u8::try_from(rpc.len()).unwrap()], rpc.to_vec()].concat();
        let stream = [frame(&ours), frame(&theirs), frame(&ours)].concat();
        let (mut decoder, mut buffer, mut out) = (decoder(64), BytesMut::new(), Vec::new());
        for byte in stream {
            buffer.extend_from_slice(&[byte]);
            while let Some(item) = decoder.decode(&mut buffer).unwrap() {
                out.push((item.bytes, item.message));
            }
        }
        let whole = |rpc: &[u8]| (rpc.len() + 1, Some(frame(rpc)));
        assert_eq!(out, [whole(&ours), (theirs.len() + 1, None), whole(&ours)]);
        assert!(buffer.is_empty());
    }

    #[test]
    fn a_frame_above_the_limit_is_refused_by_its_head() {
        let refused = |head: &[u8]| decoder(200).decode(&mut BytesMut::from(head)).is_err();
        assert!(!refused(&[198, 1]));
        assert!(refused(&[199, 1]));
        assert!(refused(&[0xff; 4]));
        assert!(!refused(&[0xff; 3]));
    }

    proptest! {
        #[test]
        fn looking_never_panics(rpc in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = look(&rpc, TOPIC);
        }
    }
}
