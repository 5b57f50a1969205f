//! Places of items, as a Job's status lists them: `1,3-5`.

use std::collections::BTreeMap;

/// The longest list that is told, in bytes.
pub const MAX_TOLD: usize = 256;

/// What a list begins with that has a digit for each four places.
const DIGITS: char = 'x';

/// A set of places, kept as ranges: adding one costs the logarithm of how many ranges there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Indexes {
    /// By its first place, the last one of a range. No two ranges touch.
    ranges: BTreeMap<u32, u32>,
    count: u32,
}

impl Indexes {
    /// Reads what [`told`](Self::told) or [`exactly`](Self::exactly) gave; what is no list, or is beyond `total`, is left out.
    pub fn read(text: Option<&str>, total: u32) -> Self {
        let text = text.unwrap_or_default();
        let mut indexes = Self::default();
        if let Some(digits) = text.strip_prefix(DIGITS) {
            for (first, digit) in (0..total).step_by(4).zip(digits.chars()) {
                let bits = digit.to_digit(16).unwrap_or_default();
                let places = (0..4).filter(|bit| bits & (1 << bit) != 0).map(|bit| first.saturating_add(bit));
                places.filter(|place| *place < total).for_each(|place| _ = indexes.insert(place));
            }
            return indexes;
        }
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (Ok(first), Ok(last)) = (first.trim().parse(), last.trim().parse::<u32>()) else { continue };
            if first <= last && last < total {
                indexes.insert_range(first, last);
            }
        }
        indexes
    }

    /// Adds a place; false if it was there.
    pub fn insert(&mut self, index: u32) -> bool {
        if self.holds(index) {
            return false;
        }
        self.insert_range(index, index);
        true
    }

    /// Adds all from `first` to `last`, which is not before it.
    fn insert_range(&mut self, mut first: u32, mut last: u32) {
        // those that it overlaps or touches become one with it; the last of them first
        while let Some((start, end)) = self.ranges.range(..=last.saturating_add(1)).next_back()
            && end.saturating_add(1) >= first
        {
            let (start, end) = (*start, *end);
            self.ranges.remove(&start);
            self.count = self.count.saturating_sub((end - start).saturating_add(1));
            (first, last) = (first.min(start), last.max(end));
        }
        self.ranges.insert(first, last);
        self.count = self.count.saturating_add((last - first).saturating_add(1));
    }

    /// How many there are.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Whether one is among them.
    pub fn holds(&self, index: u32) -> bool {
        self.ranges.range(..=index).next_back().is_some_and(|(_, last)| *last >= index)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        self.ranges.iter().flat_map(|(first, last)| *first..=*last)
    }

    /// `1,3-5`, cut where it is too long; `None` where there are none.
    pub fn told(&self) -> Option<String> {
        self.ranges().unwrap_or_else(|cut| Some(cut + ",…"))
    }

    /// All of them, in no more bytes: `1,3-5` or, where that is too long, `x` and a hexadecimal digit for each four places,
    /// the first of them being its lowest bit. There is room for 1,020 places.
    pub fn exactly(&self) -> Option<String> {
        self.ranges().unwrap_or_else(|_| {
            let last = self.ranges.last_key_value().map_or(0, |(_, last)| *last);
            let digit = |first: u32| (0..4).map(|bit| u32::from(self.holds(first.saturating_add(bit))) << bit).sum();
            let digits = (0..=last).step_by(4).filter_map(|first| char::from_digit(digit(first), 16));
            Some(std::iter::once(DIGITS).chain(digits).take(MAX_TOLD).collect())
        })
    }

    /// `1,3-5`; where that is too long, what of it there is room for beside the mark of a cut.
    fn ranges(&self) -> Result<Option<String>, String> {
        let mut text = String::new();
        for (first, last) in &self.ranges {
            let comma = if text.is_empty() { "" } else { "," };
            let part = if first == last { format!("{comma}{first}") } else { format!("{comma}{first}-{last}") };
            if text.len() + part.len() + ",…".len() > MAX_TOLD {
                return Err(text);
            }
            text.push_str(&part);
        }
        Ok(Some(text).filter(|text| !text.is_empty()))
    }

    /// `2 of 10 items failed: 3,7`: the first few, in a message of bounded length.
    pub fn failed_of(&self, total: u32) -> String {
        let indexes = self.told().unwrap_or_default();
        let short: String = indexes.chars().take(40).collect();
        let more = if short.len() < indexes.len() { "…" } else { "" };
        format!("{} of {total} items failed: {short}{more}", self.count)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lists_are_read_and_told() {
        for (text, told, count) in [
            ("", None, 0),
            ("0", Some("0"), 1),
            ("1,3-5,7", Some("1,3-5,7"), 5),
            (" 1 - 2 , 4", Some("1-2,4"), 3),
            // in any order, one beside the other
            ("5,3,4,0-1", Some("0-1,3-5"), 5),
            // beyond the last, the wrong way round, and what is no number
            ("8-10,10", None, 0),
            ("5-3,a,-,4", Some("4"), 1),
            ("0-1,…", Some("0-1"), 2),
            ("2-4,1-6,8", Some("1-6,8"), 7),
        ] {
            let indexes = Indexes::read(Some(text), 10);
            assert_eq!((indexes.told().as_deref(), indexes.count()), (told, count), "{text}");
        }
        assert_eq!(Indexes::read(None, 10), Indexes::default());
        // what a Job's status may hold is read at once, however much it is
        assert_eq!(Indexes::read(Some("0-4294967294"), u32::MAX).count(), u32::MAX);
        let odd: Vec<String> = (0..1000).step_by(2).map(|place| place.to_string()).collect();
        let told = Indexes::read(Some(&odd.join(",")), 1000).told().unwrap_or_default();
        assert!(told.len() <= MAX_TOLD && told.starts_with("0,2,4,") && told.ends_with(",…"), "{told}");
    }

    #[test]
    fn all_of_a_thousand_have_room() {
        for (step, text) in [(1, Some("0-999".to_owned())), (2, Some(format!("x{}", "5".repeat(250)))), (3, None)] {
            let mut indexes = Indexes::default();
            (0..1000).step_by(step).for_each(|place| _ = indexes.insert(place));
            let told = indexes.exactly().unwrap_or_default();
            assert!(told.len() <= MAX_TOLD, "{told}");
            assert!(text.is_none_or(|text| told == text), "{told}");
            assert_eq!(Indexes::read(Some(&told), 1000), indexes);
        }
        // what is no digit, and what is beyond the last
        assert_eq!(Indexes::read(Some("x1g…8f"), 18).told().as_deref(), Some("0,15-17"));
        assert_eq!(Indexes::default().exactly(), None);
    }

    proptest! {
        #[test]
        fn it_is_a_set(places in prop::collection::vec(0..60u32, 0..80)) {
            let mut indexes = Indexes::default();
            let mut expected = std::collections::BTreeSet::new();
            for place in places {
                prop_assert_eq!(indexes.insert(place), expected.insert(place));
            }
            prop_assert!(indexes.iter().eq(expected.iter().copied()));
            prop_assert_eq!(indexes.count() as usize, expected.len());
            prop_assert!((0..60).all(|place| indexes.holds(place) == expected.contains(&place)));
            prop_assert_eq!(&Indexes::read(indexes.told().as_deref(), 60), &indexes);
            prop_assert_eq!(&Indexes::read(indexes.exactly().as_deref(), 60), &indexes);
        }

        #[test]
        fn many_are_read_as_they_were_told(places in prop::collection::btree_set(0..1000u32, 0..900)) {
            let mut indexes = Indexes::default();
            for place in &places {
                indexes.insert(*place);
            }
            let text = indexes.exactly();
            prop_assert!(text.as_ref().is_none_or(|text| text.len() <= MAX_TOLD));
            prop_assert_eq!(Indexes::read(text.as_deref(), 1000), indexes);
        }
    }
}
