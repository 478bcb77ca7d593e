//! The page: well-formed, escaped, and without anything from outside.

use std::collections::BTreeMap;

use crate::error::Error;
use crate::report::sample;

/// Elements that have no end tag.
const VOID: &[&str] = &["meta", "br", "!doctype"];

/// The elements of a page in order, each with its attributes; fails where tags are not balanced.
fn elements(page: &str) -> Vec<&str> {
    let mut open = Vec::new();
    let mut found = Vec::new();
    let mut rest = page;
    while let Some(start) = rest.find('<') {
        let (tag, after) = rest[start + 1..].split_once('>').expect("a tag ends");
        rest = after;
        let name = tag.split([' ', '\n']).next().unwrap_or_default();
        if let Some(closed) = name.strip_prefix('/') {
            assert_eq!(open.pop(), Some(closed), "before {:.60}", rest);
        } else {
            found.push(tag);
            if VOID.contains(&name.to_lowercase().as_str()) {
                continue;
            }
            open.push(name);
            // Text of these is not markup.
            if name == "script" || name == "style" {
                let end = format!("</{name}>");
                rest = &rest[rest.find(&end).expect("it ends")..];
            }
        }
    }
    assert!(open.is_empty(), "not closed: {open:?}");
    found
}

fn pages() -> Vec<String> {
    let error = Error::data("<b>7</b> is not \"a number\"");
    let reports = [
        sample::report(None),
        sample::report(Some(error)),
        sample::nothing(),
    ];
    reports.iter().map(|r| r.to_html()).collect()
}

#[test]
fn pages_are_well_formed() {
    for page in pages() {
        let elements = elements(&page);
        assert!(elements.len() > 30, "{elements:?}");
        let ids: Vec<&str> = elements
            .iter()
            .filter_map(|e| e.split_once(" id=\"")?.1.split('"').next())
            .collect();
        let mut once = ids.clone();
        once.sort_unstable();
        once.dedup();
        assert_eq!(once.len(), ids.len(), "an id stands twice: {ids:?}");
        for element in &elements {
            if let Some((_, target)) = element.split_once("href=\"#") {
                let target = target.trim_end_matches('"');
                assert!(ids.contains(&target), "{target} is not on the page");
            }
        }
    }
}

#[test]
fn text_of_users_is_escaped() {
    let page = &pages()[0];
    let scripts = elements(page)
        .iter()
        .filter(|e| e.starts_with("script"))
        .count();
    assert_eq!(scripts, 1, "only our own");
    assert!(!page.contains("<script>alert"));
    assert!(page.contains("&lt;script&gt;alert('x')&lt;/script&gt; &amp; &quot;out&quot;"));
    assert!(page.contains("<title>learn &amp; predict · Mainstem run</title>"));
    assert!(pages()[1].contains("&lt;b&gt;7&lt;/b&gt; is not &quot;a number&quot;"));
}

#[test]
fn nothing_comes_from_outside() {
    for page in pages() {
        for outside in ["http:", "https:", "//", "src=", "@import", "<link", "<img"] {
            // Comments of our own script begin with two slashes.
            let page = page.replace("// ", "");
            assert!(!page.contains(outside), "{outside}");
        }
        assert!(page.contains("default-src 'none'"));
    }
}

#[test]
fn the_page_says_in_words_what_it_shows_in_colour() {
    let page = &pages()[0];
    for words in [
        "✓ finished",
        ">slowest<",
        "31 of 2,000,000 rows, dead letters for dead.",
        "31 of 2,000,000 rows, dropped.",
        "62 rows were rejected.",
        "births, source, over time: peak 1.82 M/s",
        "<caption>",
        "<th scope=\"row\">",
        "50 MB in 2 files",
    ] {
        assert!(page.contains(words), "{words}");
    }
    let failed = &pages()[1];
    for words in [
        "✕ failed",
        "Why it failed",
        "the run failed before it could publish",
    ] {
        assert!(failed.contains(words), "{words}");
    }
    assert!(pages()[2].contains("No phase had begun."));
}

#[test]
fn anchors_hold_for_any_name() {
    assert_eq!(super::anchor(2, "a/b c-Ä"), "node-2-a_2f_b_20_c-_c4_");
}

/// The colours of a theme by name, as red, green and blue from 0 to 1.
fn colours(theme: &str) -> BTreeMap<&str, [f64; 3]> {
    let colour = |hex: &str| {
        let part = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        [1, 3, 5].map(|at| f64::from(part(at)) / 255.0)
    };
    let named = theme
        .split([';', '{', '}'])
        .filter_map(|one| one.split_once(": #"));
    let named = named.filter_map(|(name, hex)| Some((name.trim().strip_prefix("--")?, hex)));
    named
        .map(|(name, hex)| (name, colour(&format!("#{hex}"))))
        .collect()
}

/// Contrast ratio and relative luminance as WCAG 2.2 defines them.
fn contrast(one: [f64; 3], other: [f64; 3]) -> f64 {
    let linear = |c: f64| match c <= 0.04045 {
        true => c / 12.92,
        false => ((c + 0.055) / 1.055).powf(2.4),
    };
    let luminance = |c: [f64; 3]| {
        let [red, green, blue] = c.map(linear);
        0.2126 * red + 0.7152 * green + 0.0722 * blue
    };
    let (a, b) = (luminance(one), luminance(other));
    (a.max(b) + 0.05) / (a.min(b) + 0.05)
}

/// WCAG 2.2 asks for 4.5 between text and what is behind it (1.4.3), and for 3 where a shape says something (1.4.11).
#[test]
fn text_and_shapes_stand_out_in_both_themes() {
    let (light, dark) = include_str!("style.css")
        .split_once("prefers-color-scheme: dark")
        .unwrap();
    let text = [
        "text page",
        "text card",
        "text slow-card",
        "text bad-card",
        "muted page",
        "muted card",
        "muted slow-card",
        "link page",
        "link card",
        "link slow-card",
        "good good-card",
        "bad bad-card",
        "slow card",
        "slow slow-card",
        "card slow",
        "band-text band",
    ];
    let shapes = [
        "fill card",
        "fill track",
        "slow track",
        "slow slow-card",
        "edge card",
        "edge page",
        "bad page",
        "link card",
    ];
    for theme in [light, dark] {
        let colours = colours(theme);
        assert_eq!(colours.len(), 17);
        for (pairs, least) in [(text.as_slice(), 4.5), (shapes.as_slice(), 3.0)] {
            for pair in pairs {
                let (front, back) = pair.split_once(' ').unwrap();
                let found = contrast(colours[front], colours[back]);
                assert!(found >= least, "{pair}: {found:.2}, expected {least}");
            }
        }
    }
    assert!((contrast([0.0; 3], [1.0; 3]) - 21.0).abs() < 1e-9);
}
