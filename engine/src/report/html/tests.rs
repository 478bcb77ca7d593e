//! The page: well-formed, escaped, and without anything from outside.

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
