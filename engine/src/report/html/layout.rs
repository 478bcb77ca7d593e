//! Where the nodes of a small directed graph stand: in layers, from left to right.
//!
//! A node stands right of all that it reads (longest path). Edges that pass layers get a bend in each,
//! so that they go between boxes. Within a layer, nodes are ordered by the mean place of their
//! neighbours, in a few sweeps to and fro.

/// The width and the height of a node.
pub(super) const NODE: (f64, f64) = (180.0, 92.0);

/// Between layers, and between the nodes of one.
const GAP: (f64, f64) = (40.0, 30.0);

/// The height that a passing edge takes in a layer.
const BEND: f64 = 14.0;

/// Sweeps over the layers that order them.
const SWEEPS: usize = 6;

/// Where everything stands, in pixels.
#[derive(Debug, Default)]
pub(super) struct Layout {
    pub(super) width: f64,
    pub(super) height: f64,
    /// The left upper corner of each node.
    pub(super) nodes: Vec<(f64, f64)>,
    /// The points of each edge: from the right side of one node, through bends, to the left side of another.
    pub(super) edges: Vec<Vec<(f64, f64)>>,
}

/// A node, or the bend of an edge in a layer that it passes.
struct Place {
    layer: usize,
    height: f64,
    before: Vec<usize>,
    after: Vec<usize>,
    y: f64,
}

/// Lays out `n_nodes` nodes and the edges between them. An edge that does not go from an earlier to a
/// later node is given no points.
pub(super) fn layout(n_nodes: usize, edges: &[(usize, usize)]) -> Layout {
    let mut places = layers(n_nodes, edges);
    let routes = bend(&mut places, edges);
    let layers = order(&places);
    align(&mut places, &layers);
    let left = |layer: usize| layer as f64 * (NODE.0 + GAP.0);
    let top = places.iter().map(|p| p.y).fold(f64::INFINITY, f64::min);
    for place in &mut places {
        place.y -= top;
    }
    let middle = |i: usize| places[i].y + places[i].height / 2.0;
    let points = |route: &Vec<usize>| {
        let (Some(&first), Some(&last)) = (route.first(), route.last()) else {
            return Vec::new();
        };
        let mut points = vec![(left(places[first].layer) + NODE.0, middle(first))];
        for &bend in &route[1..route.len() - 1] {
            let x = left(places[bend].layer);
            points.extend([(x, middle(bend)), (x + NODE.0, middle(bend))]);
        }
        points.push((left(places[last].layer), middle(last)));
        points
    };
    let bottom = places.iter().map(|p| p.y + p.height).fold(0.0, f64::max);
    Layout {
        width: left(layers.len().max(1) - 1) + NODE.0,
        height: bottom,
        nodes: places[..n_nodes]
            .iter()
            .map(|p| (left(p.layer), p.y))
            .collect(),
        edges: routes.iter().map(points).collect(),
    }
}

/// Each node one layer after the last of those before it.
fn layers(n_nodes: usize, edges: &[(usize, usize)]) -> Vec<Place> {
    let mut layers = vec![0usize; n_nodes];
    for node in 0..n_nodes {
        let before = edges
            .iter()
            .filter(|(from, to)| *to == node && *from < node);
        layers[node] = before.map(|&(from, _)| layers[from] + 1).max().unwrap_or(0);
    }
    // What reads nothing stands just before what reads it.
    for node in 0..n_nodes {
        if !edges.iter().any(|(from, to)| *to == node && from < to) {
            let after = edges.iter().filter(|(from, to)| *from == node && from < to);
            let first = after.map(|&(_, to)| layers[to]).min();
            layers[node] = first.map_or(0, |layer| layer.saturating_sub(1));
        }
    }
    let place = |layer| Place {
        layer,
        height: NODE.1,
        before: Vec::new(),
        after: Vec::new(),
        y: 0.0,
    };
    layers.into_iter().map(place).collect()
}

/// Adds a bend for each layer that an edge passes; gives the places that each edge goes through.
fn bend(places: &mut Vec<Place>, edges: &[(usize, usize)]) -> Vec<Vec<usize>> {
    let mut routes = Vec::with_capacity(edges.len());
    for &(from, to) in edges {
        if from >= to {
            routes.push(Vec::new());
            continue;
        }
        let mut route = vec![from];
        for layer in places[from].layer + 1..places[to].layer {
            route.push(places.len());
            places.push(Place {
                layer,
                height: BEND,
                before: Vec::new(),
                after: Vec::new(),
                y: 0.0,
            });
        }
        route.push(to);
        for pair in route.windows(2) {
            places[pair[0]].after.push(pair[1]);
            places[pair[1]].before.push(pair[0]);
        }
        routes.push(route);
    }
    routes
}

/// The places of each layer, ordered so that few edges cross.
fn order(places: &[Place]) -> Vec<Vec<usize>> {
    let n_layers = places.iter().map(|p| p.layer + 1).max().unwrap_or(0);
    let mut layers: Vec<Vec<usize>> = vec![Vec::new(); n_layers];
    for (i, place) in places.iter().enumerate() {
        layers[place.layer].push(i);
    }
    let mut rank = vec![0.0; places.len()];
    let set = |layer: &[usize], rank: &mut Vec<f64>| {
        for (at, &i) in layer.iter().enumerate() {
            rank[i] = at as f64;
        }
    };
    for layer in &layers {
        set(layer, &mut rank);
    }
    for sweep in 0..SWEEPS {
        let forth = sweep % 2 == 0;
        for at in 0..n_layers {
            let at = if forth { at } else { n_layers - 1 - at };
            let neighbours = |i: usize| match forth {
                true => &places[i].before,
                false => &places[i].after,
            };
            let mean = |i: usize| mean(neighbours(i), |j| rank[j]).unwrap_or(rank[i]);
            let mut means: Vec<(f64, usize)> = layers[at].iter().map(|&i| (mean(i), i)).collect();
            // Stable: what is equal keeps its order.
            means.sort_by(|a, b| a.0.total_cmp(&b.0));
            layers[at] = means.into_iter().map(|(_, i)| i).collect();
            set(&layers[at], &mut rank);
        }
    }
    layers
}

/// Moves each layer so that places stand as level with what they read as their order allows.
fn align(places: &mut [Place], layers: &[Vec<usize>]) {
    for layer in layers {
        let mut free = f64::NEG_INFINITY;
        let mut moved = 0.0;
        for &i in layer {
            let middle = |j: usize| places[j].y + places[j].height / 2.0;
            let wanted = mean(&places[i].before, middle).map(|m| m - places[i].height / 2.0);
            let y = match wanted {
                Some(wanted) => wanted.max(free),
                None => free.max(0.0),
            };
            moved += y - wanted.unwrap_or(y);
            places[i].y = y;
            free = y + places[i].height + GAP.1;
        }
        let up = moved / layer.len().max(1) as f64;
        for &i in layer {
            places[i].y -= up;
        }
    }
}

fn mean(of: &[usize], value: impl Fn(usize) -> f64) -> Option<f64> {
    if of.is_empty() {
        return None;
    }
    Some(of.iter().map(|&i| value(i)).sum::<f64>() / of.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The column and the row of pixels of each node.
    fn corners(n_nodes: usize, edges: &[(usize, usize)]) -> Vec<(usize, i64)> {
        let column = |x: f64| (x / (NODE.0 + GAP.0)) as usize;
        let nodes = layout(n_nodes, edges).nodes;
        nodes.iter().map(|&(x, y)| (column(x), y as i64)).collect()
    }

    #[test]
    fn a_chain_is_level() {
        assert_eq!(corners(3, &[(0, 1), (1, 2)]), [(0, 0), (1, 0), (2, 0)]);
    }

    #[test]
    fn what_reads_nothing_stands_just_before_what_reads_it() {
        let columns: Vec<_> = corners(4, &[(0, 1), (1, 3), (2, 3)])
            .iter()
            .map(|c| c.0)
            .collect();
        assert_eq!(columns, [0, 1, 1, 2]);
    }

    #[test]
    fn a_fork_stands_around_what_it_reads() {
        assert_eq!(corners(3, &[(0, 1), (0, 2)]), [(0, 61), (1, 0), (1, 122)]);
    }

    #[test]
    fn branches_do_not_cross_without_need() {
        // The order of the graph would cross: 0 feeds 3, 1 feeds 2.
        let corners = corners(4, &[(0, 3), (1, 2)]);
        assert!(
            corners[0].1 < corners[1].1 && corners[3].1 < corners[2].1,
            "{corners:?}"
        );
    }

    #[test]
    fn an_edge_that_passes_a_layer_goes_around_its_nodes() {
        let layout = layout(3, &[(0, 1), (1, 2), (0, 2)]);
        let (_, top) = layout.nodes[1];
        let passing = layout.edges[2][1].1;
        assert!(passing < top || passing > top + NODE.1, "{layout:?}");
        assert_eq!(layout.edges[2].len(), 4);
    }

    #[test]
    fn no_two_nodes_overlap_in_graphs_drawn_at_random() {
        proptest::proptest!(|(edges in proptest::collection::vec((0usize..25, 0usize..25), 0..60))| {
            let Layout { nodes, width, height, edges: routes } = layout(25, &edges);
            for (i, a) in nodes.iter().enumerate() {
                assert!(a.0 >= 0.0 && a.1 >= 0.0);
                assert!(a.0 + NODE.0 <= width + 0.01 && a.1 + NODE.1 <= height + 0.01);
                for b in &nodes[i + 1..] {
                    assert!(a.0 != b.0 || (a.1 - b.1).abs() >= NODE.1);
                }
            }
            for ((from, to), route) in edges.iter().zip(routes) {
                assert_eq!(route.is_empty(), from >= to);
            }
        });
    }

    #[test]
    fn nothing_has_no_size() {
        let layout = layout(0, &[]);
        assert_eq!((layout.height, layout.edges.len()), (0.0, 0));
    }
}
