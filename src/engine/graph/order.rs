//! Who comes before whom: cycles, and all that lies before a task.

use std::collections::VecDeque;

use petgraph::{
    Direction,
    algo::kosaraju_scc,
    graph::{DiGraph, NodeIndex},
};

/// The order of a set of tasks, known by their places. Computed without recursion, so that no chain is too long.
#[derive(Debug)]
pub struct Order {
    graph: DiGraph<(), ()>,
    /// Strongly connected groups, each before those that depend on it.
    groups: Vec<Vec<NodeIndex>>,
}

impl Order {
    /// The order that follows from `dependencies[task]`, the places that come before each task.
    /// Places that do not exist are left out.
    pub fn new(dependencies: &[Vec<usize>]) -> Self {
        let edges = dependencies.iter().map(Vec::len).sum();
        let mut graph = DiGraph::with_capacity(dependencies.len(), edges);
        for _ in dependencies {
            graph.add_node(());
        }
        for (task, before) in dependencies.iter().enumerate() {
            for dependency in before.iter().filter(|dependency| **dependency < dependencies.len()) {
                graph.add_edge(NodeIndex::new(*dependency), NodeIndex::new(task), ());
            }
        }
        // Kosaraju's algorithm as petgraph has it is iterative, and gives the groups last ones first
        let mut groups = kosaraju_scc(&graph);
        groups.reverse();
        Self { graph, groups }
    }

    /// The tasks, each after all that it depends on (the members of a cycle in any order).
    pub fn sorted(&self) -> impl Iterator<Item = usize> {
        self.groups.iter().flatten().map(|task| task.index())
    }

    /// One shortest cycle of each group of tasks that wait for each other: its members, each before the next.
    pub fn cycles(&self) -> Vec<Vec<usize>> {
        let mut cycles: Vec<Vec<usize>> =
            self.groups.iter().filter(|group| group.len() > 1).map(|group| self.cycle(group)).collect();
        cycles.sort();
        cycles
    }

    /// A shortest way from the first member of a group back to it. Ways that leave the group never come back.
    fn cycle(&self, group: &[NodeIndex]) -> Vec<usize> {
        let Some(start) = group.iter().min().copied() else { return Vec::new() };
        let mut reached_from = vec![None; self.graph.node_count()];
        let mut queue = VecDeque::from([start]);
        while let Some(task) = queue.pop_front() {
            for next in self.graph.neighbors_directed(task, Direction::Outgoing) {
                if next == start {
                    let mut members = vec![task.index()];
                    let mut current = task;
                    while let Some(Some(before)) = reached_from.get(current.index()).copied() {
                        members.push(NodeIndex::index(before));
                        current = before;
                    }
                    members.reverse();
                    return members;
                }
                if let Some(slot @ None) = reached_from.get_mut(next.index()) {
                    *slot = Some(task);
                    queue.push_back(next);
                }
            }
        }
        Vec::new()
    }

    /// All that lies before each task.
    pub fn ancestors(&self) -> Ancestors {
        let tasks = self.graph.node_count();
        let words = tasks.div_ceil(64);
        let mut ancestors = Ancestors { words, bits: vec![0; tasks * words] };
        let mut all = vec![0_u64; words];
        for group in &self.groups {
            all.fill(0);
            for task in group {
                for before in self.graph.neighbors_directed(*task, Direction::Incoming) {
                    set(&mut all, before.index());
                    all.iter_mut().zip(ancestors.row(before.index())).for_each(|(into, from)| *into |= from);
                }
            }
            for task in group {
                let start = task.index() * words;
                if let Some(row) = ancestors.bits.get_mut(start..start + words) {
                    row.copy_from_slice(&all);
                }
            }
        }
        ancestors
    }
}

/// For each task the set of those before it, as bits: 500 KB for 2,000 tasks.
#[derive(Debug)]
pub struct Ancestors {
    words: usize,
    bits: Vec<u64>,
}

impl Ancestors {
    fn row(&self, task: usize) -> &[u64] {
        self.bits.get(task * self.words..(task + 1) * self.words).unwrap_or_default()
    }

    /// Whether `ancestor` lies before `task`.
    pub fn holds(&self, ancestor: usize, task: usize) -> bool {
        self.row(task).get(ancestor / 64).is_some_and(|word| word & (1 << (ancestor % 64)) != 0)
    }
}

fn set(row: &mut [u64], place: usize) {
    if let Some(word) = row.get_mut(place / 64) {
        *word |= 1 << (place % 64);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_the_members_of_cycles() {
        let cycles = |dependencies: &[Vec<usize>]| Order::new(dependencies).cycles();
        assert_eq!(cycles(&[vec![], vec![0], vec![0, 1]]), Vec::<Vec<usize>>::new());
        assert_eq!(cycles(&[vec![2], vec![0], vec![1]]), [[0, 1, 2]]);
        // two apart, and one task that only hangs on a cycle
        assert_eq!(cycles(&[vec![1], vec![0], vec![1], vec![4], vec![3]]), [[0, 1], [3, 4]]);
        // the shortest of those that run through the first
        assert_eq!(cycles(&[vec![3, 1], vec![0], vec![1], vec![2]]), [[0, 1]]);
    }

    #[test]
    fn long_chains_and_rings() {
        let mut ring: Vec<Vec<usize>> = (0..2000_usize).map(|task| task.checked_sub(1).into_iter().collect()).collect();
        let chain = Order::new(&ring);
        assert!(chain.cycles().is_empty());
        assert!(chain.sorted().eq(0..2000));
        let ancestors = chain.ancestors();
        assert!(ancestors.holds(0, 1999) && !ancestors.holds(1999, 0) && !ancestors.holds(5, 5));
        ring[0] = vec![1999];
        assert_eq!(Order::new(&ring).cycles(), [(0..2000).collect::<Vec<_>>()]);
    }

    proptest! {
        /// Against the definition: an ancestor is a dependency or an ancestor of one.
        #[test]
        fn ancestors_are_the_closure(dependencies in prop::collection::vec(prop::collection::vec(0..80_usize, 0..4), 1..80)) {
            let tasks = dependencies.len();
            let order = Order::new(&dependencies);
            let ancestors = order.ancestors();
            for task in 0..tasks {
                let mut expected = vec![false; tasks];
                let mut open: Vec<usize> = dependencies[task].clone();
                while let Some(before) = open.pop() {
                    if before < tasks && !expected[before] {
                        expected[before] = true;
                        open.extend(&dependencies[before]);
                    }
                }
                for (before, held) in expected.iter().enumerate() {
                    // a task that depends on itself alone is no cycle of several and is reported elsewhere
                    prop_assert_eq!(ancestors.holds(before, task), *held, "{} before {}", before, task);
                }
            }
            let position: Vec<usize> = { let mut p = vec![0; tasks]; order.sorted().enumerate().for_each(|(at, task)| p[task] = at); p };
            for cycle in order.cycles() {
                for (at, member) in cycle.iter().enumerate() {
                    prop_assert!(dependencies[cycle[(at + 1) % cycle.len()]].contains(member));
                }
            }
            if order.cycles().is_empty() {
                for (task, before) in dependencies.iter().enumerate() {
                    for dependency in before.iter().filter(|d| **d < tasks && **d != task) {
                        prop_assert!(position[*dependency] < position[task]);
                    }
                }
            }
        }
    }
}
