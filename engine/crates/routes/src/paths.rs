//! The paths claimed under one host: a radix tree whose nodes are shared between tables.
//!
//! A look-up walks the bytes of the path once and remembers the last prefix seen on the way, so its cost depends on the
//! path and not on how many are claimed, and no choice of claims makes it degenerate. A change copies the nodes from the
//! root to the change.

use std::sync::Arc;

use smallvec::SmallVec;

/// Short ones lie in the node itself.
type Bytes = SmallVec<[u8; 16]>;

/// Values by exact path and by literal prefix. In this order, what is read of a leaf lies in one cache line.
#[derive(Debug, Clone)]
#[repr(C)]
pub(crate) struct Paths<V> {
    /// The bytes between the parent and this node.
    label: Bytes,
    exact: Option<V>,
    prefix: Option<V>,
    /// The first byte of each child's label, ascending: a look-up touches only the child that it goes to.
    firsts: Bytes,
    children: Vec<Arc<Paths<V>>>,
}

/// Which of a node's two values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Exact,
    Prefix,
}

impl<V: Clone> Default for Paths<V> {
    fn default() -> Self {
        Self::leaf(&[])
    }
}

impl<V: Clone> Paths<V> {
    fn leaf(label: &[u8]) -> Self {
        Self { label: label.into(), exact: None, prefix: None, firsts: Bytes::new(), children: Vec::new() }
    }

    fn child(&self, first: u8) -> Result<usize, usize> {
        self.firsts.binary_search(&first)
    }

    fn slot(&mut self, kind: Kind) -> &mut Option<V> {
        match kind {
            Kind::Exact => &mut self.exact,
            Kind::Prefix => &mut self.prefix,
        }
    }

    /// Nothing is claimed.
    pub(crate) fn is_empty(&self) -> bool {
        self.exact.is_none() && self.prefix.is_none() && self.children.is_empty()
    }

    /// The exact path if it is claimed, else the longest prefix.
    pub(crate) fn find(&self, path: &[u8]) -> Option<&V> {
        let mut node = self;
        let mut rest = path;
        let mut best = None;
        loop {
            best = node.prefix.as_ref().or(best);
            let Some(first) = rest.first() else {
                return node.exact.as_ref().or(best);
            };
            let Ok(index) = node.child(*first) else {
                return best;
            };
            node = &node.children[index];
            match rest.strip_prefix(&*node.label) {
                Some(below) => rest = below,
                None => return best,
            }
        }
    }

    /// What is claimed by exactly this text.
    pub(crate) fn get(&self, kind: Kind, text: &[u8]) -> Option<&V> {
        let Some(first) = text.first() else {
            return match kind {
                Kind::Exact => self.exact.as_ref(),
                Kind::Prefix => self.prefix.as_ref(),
            };
        };
        let child = &self.children[self.child(*first).ok()?];
        child.get(kind, text.strip_prefix(&*child.label)?)
    }

    /// Puts a value; gives the one that was there.
    pub(crate) fn insert(&mut self, kind: Kind, text: &[u8], value: V) -> Option<V> {
        let Some(first) = text.first() else {
            return self.slot(kind).replace(value);
        };
        match self.child(*first) {
            Err(index) => {
                let mut leaf = Self::leaf(text);
                *leaf.slot(kind) = Some(value);
                self.firsts.insert(index, *first);
                self.children.insert(index, Arc::new(leaf));
                None
            }
            Ok(index) => {
                let child = Arc::make_mut(&mut self.children[index]);
                let common = child.label.iter().zip(text).take_while(|(one, other)| one == other).count();
                if common < child.label.len() {
                    let mut lower = std::mem::replace(child, Self::leaf(&text[..common]));
                    lower.label = lower.label[common..].into();
                    child.firsts.push(lower.label[0]);
                    child.children.push(Arc::new(lower));
                }
                child.insert(kind, &text[common..], value)
            }
        }
    }

    /// Takes a value out, and the nodes that nothing needs any more.
    pub(crate) fn remove(&mut self, kind: Kind, text: &[u8]) -> Option<V> {
        let Some(first) = text.first() else {
            return self.slot(kind).take();
        };
        let index = self.child(*first).ok()?;
        // Look first: a miss must not copy nodes.
        let below = text.strip_prefix(&*self.children[index].label)?;
        self.children[index].get(kind, below)?;
        let child = Arc::make_mut(&mut self.children[index]);
        let removed = child.remove(kind, below);
        if child.is_empty() {
            self.firsts.remove(index);
            self.children.remove(index);
        } else if child.exact.is_none()
            && child.prefix.is_none()
            && child.children.len() == 1
            && let Some(only) = child.children.pop()
        {
            let mut only = Arc::unwrap_or_clone(only);
            only.label = [&*child.label, &*only.label].concat().into();
            *child = only;
        }
        removed
    }
}
