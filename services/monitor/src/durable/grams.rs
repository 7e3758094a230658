//! Keys of the index: how texts and attributes are taken apart so that a part of them is found again. Pure.
//!
//! A text that is looked for may stand in the middle of another. So a text is kept as its pieces of three bytes; and,
//! because those of numbers and ids are in every block, as longer pieces too, of which only some are kept: of each few
//! neighbours the one with the smallest hash. Whatever text holds another holds the same choice of its pieces. After
//! Schleimer, Wilkerson and Aiken, "Winnowing" (2003).

use std::collections::HashSet;
use std::hash::BuildHasherDefault;

use super::index::Plain;

/// Bytes of a short piece.
const SHORT: usize = 3;
/// Bytes of a long piece.
const LONG: usize = 5;
/// Neighbours of which one is kept; a text of `LONG + NEIGHBOURS - 1` bytes is the shortest with a long piece.
const NEIGHBOURS: usize = 4;

/// What a key stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A text that was taken apart; never in a file.
    Seen,
    /// A piece of three bytes.
    Short,
    /// A longer piece.
    Long,
    /// A trace.
    Trace,
    /// A trace, for the second time: one look-up must not read a block in two hundred.
    TraceAgain,
    /// Name of a span.
    Name,
    /// A service.
    Service,
    /// An instance.
    Instance,
    /// A level.
    Level,
    /// A service and a level of one row.
    ServiceLevel,
    /// An attribute's name and its value, whatever the case of that.
    Pair,
    /// An attribute's name and its value, a number.
    Number,
}

/// Mixes the bits of a number; each bit of the answer depends on all of them.
pub(crate) const fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 31)).wrapping_mul(0x7fb5_d329_728e_a185);
    let number = (number ^ (number >> 27)).wrapping_mul(0x81da_def4_bc2d_d44d);
    number ^ (number >> 33)
}

/// The key of a text.
pub(crate) fn key(kind: Kind, text: &str) -> u64 {
    let seed = 0x51_7cc1_b727_220a ^ (kind as u64) << 56 ^ text.len() as u64;
    let fold = |state: u64, part: u64| (state ^ part).rotate_left(23).wrapping_mul(0x9fb2_1c65_1e98_df25);
    let (parts, rest) = text.as_bytes().as_chunks::<8>();
    let state = parts.iter().fold(seed, |state, part| fold(state, u64::from_le_bytes(*part)));
    mix(rest.iter().fold(state, |state, byte| fold(state, u64::from(*byte))))
}

fn key_of_piece(kind: Kind, piece: u64) -> u64 {
    mix(mix(piece).wrapping_add(kind as u64))
}

/// The keys of an attribute: one for its value as text, or one for it as a number; both where it reads as both.
pub(crate) fn keys_of_pair(name: &str, value: &str) -> impl Iterator<Item = u64> + use<> {
    let is_number = |text: &str| text.parse::<f64>().ok().filter(|number| number.is_finite());
    let number = is_number(value.trim()).map(|number| key_of_number(name, number));
    let text = is_number(value).is_none().then(|| key_of_pair(name, value));
    number.into_iter().chain(text)
}

/// The key of an attribute whose value is that text, which is no number.
pub(crate) fn key_of_pair(name: &str, value: &str) -> u64 {
    key(Kind::Pair, &format!("{name}\n{}", value.to_ascii_lowercase()))
}

/// The key of an attribute whose value is that number, however it is written.
pub(crate) fn key_of_number(name: &str, number: f64) -> u64 {
    // Zero has two forms.
    let bits = if number == 0.0 { 0 } else { number.to_bits() };
    mix(key(Kind::Number, name) ^ mix(bits))
}

/// Pieces of texts.
#[derive(Debug, Default)]
pub(crate) struct Grams {
    /// A bit for each short piece that was found.
    known: Vec<u64>,
    short: Vec<u32>,
    long: HashSet<u64, BuildHasherDefault<Plain>>,
}

impl Grams {
    /// Takes a text apart.
    pub(crate) fn add(&mut self, text: &str) {
        match text.is_ascii() {
            true => self.add_lower(&text.to_ascii_lowercase()),
            false => self.add_lower(&text.to_lowercase()),
        }
    }

    fn add_lower(&mut self, text: &str) {
        self.known.resize(1 << 18, 0);
        for piece in text.as_bytes().windows(SHORT) {
            let piece = short(piece);
            let (word, bit) = (piece as usize / 64, 1 << (piece % 64));
            if self.known[word] & bit == 0 {
                self.known[word] |= bit;
                self.short.push(piece);
            }
        }
        chosen(text.as_bytes(), |piece| {
            self.long.insert(piece);
        });
    }

    /// Gives the keys of all pieces, and forgets them.
    pub(crate) fn take(&mut self, keys: &mut Vec<u64>) {
        for piece in self.short.drain(..) {
            self.known[piece as usize / 64] = 0;
            keys.push(key_of_piece(Kind::Short, u64::from(piece)));
        }
        keys.extend(self.long.drain().map(|piece| key_of_piece(Kind::Long, piece)));
    }
}

/// The keys that every block has in which a text, in lower case, is a part of another.
pub(crate) fn keys_of_part(text: &str) -> Vec<u64> {
    let mut keys = Vec::new();
    // The longer ones are rarer, so they are asked about first.
    chosen(text.as_bytes(), |piece| keys.push(key_of_piece(Kind::Long, piece)));
    keys.extend(text.as_bytes().windows(SHORT).map(|piece| key_of_piece(Kind::Short, u64::from(short(piece)))));
    keys
}

fn short(piece: &[u8]) -> u32 {
    piece.iter().fold(0, |piece, byte| piece << 8 | u32::from(*byte))
}

/// Gives the long pieces that are kept of a text, as hashes.
fn chosen(text: &[u8], mut give: impl FnMut(u64)) {
    let mut near = [u64::MAX; NEIGHBOURS];
    let mut last = None;
    for (place, piece) in text.windows(LONG).enumerate() {
        let hash = mix(piece.iter().fold(0, |piece, byte| piece << 8 | u64::from(*byte)));
        near[place % NEIGHBOURS] = hash;
        if place + 1 >= NEIGHBOURS {
            let smallest = near.iter().copied().min();
            if smallest != last {
                smallest.into_iter().for_each(&mut give);
                last = smallest;
            }
        }
    }
}
