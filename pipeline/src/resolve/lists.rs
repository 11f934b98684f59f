//! Interned lists: what a `Multi` verdict names, one copy for all entries that say the same.
//!
//! A frame of the burst may have its list from an entry that gives way later in the same burst, and its copies are made
//! when the burst is sent. So a list that nobody names any more is kept until the next burst begins: its number given
//! to another list at once, the frame would leave by the ports of another VLAN.

use std::collections::HashMap;

use ahash::RandomState;

use crate::resolve::walk::Copy;

/// Lists of ways out, counted by the entries that name them.
#[derive(Debug, Default)]
pub struct Lists {
    index: HashMap<Box<[Copy]>, u32, RandomState>,
    /// By number: the list, and how many name it.
    lists: Vec<(Box<[Copy]>, u32)>,
    free: Vec<u32>,
    /// Names given up since the last [`Self::settle`]: a number stands here once for each.
    released: Vec<u32>,
}

impl Lists {
    /// The number of a list; it is named once more.
    pub fn obtain(&mut self, list: &[Copy]) -> u32 {
        if let Some(&number) = self.index.get(list) {
            if let Some((_, names)) = self.lists.get_mut(number as usize) {
                *names += 1;
            }
            return number;
        }
        let row = (Box::from(list), 1);
        let number = match self.free.pop() {
            Some(number) => {
                if let Some(place) = self.lists.get_mut(number as usize) {
                    *place = row;
                }
                number
            }
            None => {
                self.lists.push(row);
                self.lists.len() as u32 - 1
            }
        };
        self.index.insert(Box::from(list), number);
        number
    }

    /// One that named the list is gone. The list stays until [`Self::settle`].
    pub fn release(&mut self, number: u32) {
        self.released.push(number);
    }

    /// No frame waits for its copies: lists that nobody names go.
    #[inline]
    pub fn settle(&mut self) {
        if !self.released.is_empty() {
            self.forget();
        }
    }

    #[cold]
    fn forget(&mut self) {
        for number in self.released.drain(..) {
            let Some((list, names)) = self.lists.get_mut(number as usize) else { continue };
            *names = names.saturating_sub(1);
            if *names == 0 {
                let list = std::mem::take(list);
                self.index.remove(&list);
                self.free.push(number);
            }
        }
    }

    /// A list by its number.
    pub fn get(&self, number: u32) -> &[Copy] {
        self.lists.get(number as usize).map_or(&[], |(list, _)| list)
    }

    /// Lists that are named.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// No list is named.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use api::PortId;

    use super::*;
    use crate::burst::VlanEdit;

    #[test]
    fn a_list_lives_as_long_as_it_is_named() {
        let way = |port| Copy { port: PortId(port), vlan: VlanEdit::Keep, mtu: 1500 };
        let mut lists = Lists::default();
        let a = lists.obtain(&[way(1), way(2)]);
        let b = lists.obtain(&[way(1), way(3)]);
        assert_ne!(a, b);
        assert_eq!(lists.obtain(&[way(1), way(2)]), a);
        lists.release(a);
        lists.settle();
        assert_eq!(lists.get(a), [way(1), way(2)]);
        lists.release(a);
        assert_eq!(lists.get(a), [way(1), way(2)], "a frame may still wait for it");
        lists.settle();
        assert_eq!(lists.len(), 1);
        assert_eq!(lists.obtain(&[way(4), way(5)]), a, "the number is used again");
        assert_eq!(lists.get(b), [way(1), way(3)]);
    }
}
