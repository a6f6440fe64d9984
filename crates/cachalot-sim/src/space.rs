//! The bytes of a simulated set: *sectors* in a line, which lie on objects in one way or another.

use std::collections::BTreeMap;

use cachalot::{ByteRange, Layout, ObjectExtent, ObjectKey, ObjectName, Place};

/// How the line of sectors is laid on objects.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Spread {
    /// The sectors are the start of the set's file.
    File(Layout),
    /// Each object holds so many sectors, from an offset on.
    Objects {
        /// Where an object's first sector starts.
        base: u64,
        /// How many it holds.
        sectors: u32,
    },
}

/// The sectors of one set.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Space {
    /// The set's name, which its objects' names start with.
    pub name: String,
    /// The bytes of a sector.
    pub unit: u32,
    /// How many there are.
    pub sectors: u32,
    /// Where they lie.
    pub spread: Spread,
}

/// Sectors `at..at + len`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Part {
    /// The first.
    pub at: u32,
    /// How many.
    pub len: u32,
}

impl Part {
    pub(crate) fn numbers(self) -> std::ops::Range<u32> {
        self.at..self.at + self.len
    }

    pub(crate) const fn overlaps(self, other: Self) -> bool {
        self.at < other.at + other.len && other.at < self.at + self.len
    }
}

/// A part of a request that the cache treats as one: it is seen whole or not at all.
#[derive(Clone, Debug)]
pub(crate) struct Extent {
    pub(crate) extent: ObjectExtent,
    pub(crate) parts: Vec<Part>,
}

/// A run of an object's bytes that holds sectors.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    /// Where in the object it starts.
    pub(crate) offset: u64,
    /// Where in the line of the set's bytes.
    pub(crate) line: usize,
    pub(crate) len: usize,
}

impl Space {
    pub(crate) fn bytes(&self) -> usize {
        self.unit as usize * self.sectors as usize
    }

    /// The part of the set's file.
    pub(crate) fn file_range(&self, part: Part) -> (u64, u64) {
        let unit = u64::from(self.unit);
        (u64::from(part.at) * unit, u64::from(part.len) * unit)
    }

    /// The extents of a part; their places count from `start` in the caller's buffer.
    pub(crate) fn extents(&self, part: Part, start: u64) -> Vec<Extent> {
        let unit = u64::from(self.unit);
        match &self.spread {
            Spread::File(layout) => {
                let (offset, len) = self.file_range(part);
                let Ok(range) = ByteRange::new(offset, len) else {
                    return Vec::new();
                };
                layout
                    .extents(range)
                    .into_iter()
                    .map(|run| {
                        let sectors = |place: &Place| Part {
                            at: part.at + small(place.offset / unit),
                            len: small(place.len / unit),
                        };
                        Extent {
                            parts: run.places.iter().map(sectors).collect(),
                            extent: ObjectExtent {
                                object: ObjectKey::Number(run.object),
                                range: run.range,
                                places: run
                                    .places
                                    .iter()
                                    .map(|place| later(*place, start))
                                    .collect(),
                            },
                        }
                    })
                    .collect()
            }
            Spread::Objects { base, sectors } => {
                let mut extents = Vec::new();
                let mut at = part.at;
                while at < part.at + part.len {
                    let object = at / sectors;
                    let end = (part.at + part.len).min((object + 1) * sectors);
                    let len = u64::from(end - at) * unit;
                    let offset = base + u64::from(at % sectors) * unit;
                    if let Ok(range) = ByteRange::new(offset, len) {
                        let place = Place {
                            offset: start + u64::from(at - part.at) * unit,
                            len,
                        };
                        extents.push(Extent {
                            parts: vec![Part { at, len: end - at }],
                            extent: ObjectExtent {
                                object: ObjectKey::Number(u64::from(object)),
                                range,
                                places: vec![place],
                            },
                        });
                    }
                    at = end;
                }
                extents
            }
        }
    }

    /// The objects' names in the store, with the bytes that they hold of the line.
    pub(crate) fn objects(&self) -> BTreeMap<ObjectName, Vec<Segment>> {
        let whole = Part {
            at: 0,
            len: self.sectors,
        };
        let mut objects: BTreeMap<ObjectName, Vec<Segment>> = BTreeMap::new();
        for Extent { extent, .. } in self.extents(whole, 0) {
            let Some(name) = self.object_name(&extent.object) else {
                continue;
            };
            let mut offset = extent.range.start();
            for place in extent.places {
                objects.entry(name.clone()).or_default().push(Segment {
                    offset,
                    line: place.offset as usize,
                    len: place.len as usize,
                });
                offset += place.len;
            }
        }
        objects
    }

    pub(crate) fn object_name(&self, key: &ObjectKey) -> Option<ObjectName> {
        match key {
            ObjectKey::Number(number) => {
                ObjectName::new(format!("{}.{number:016x}", self.name)).ok()
            }
            ObjectKey::Name(name) => ObjectName::new(name.clone()).ok(),
        }
    }
}

const fn later(place: Place, start: u64) -> Place {
    Place {
        offset: place.offset + start,
        len: place.len,
    }
}

fn small(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
