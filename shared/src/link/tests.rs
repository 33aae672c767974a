use super::*;
use crate::bundle::MAX_STEPS;
use crate::program::Sampler;
use proptest::prelude::*;

/// A link without problems.
fn clean(fragment: &str) -> Link {
    let (link, problems) = Link::parse(fragment);
    assert_eq!(problems, [], "{fragment}");
    link
}

/// The only problem of a link: key and expected value.
fn problem(fragment: &str) -> (String, String) {
    let (_, problems) = Link::parse(fragment);
    match &problems[..] {
        [Problem::Value { key, expected, .. }] => (key.clone(), expected.clone()),
        other => panic!("{fragment}: {other:?}"),
    }
}

#[test]
fn everything_in_one_link() {
    let text = "v=1&m=fashion-boot&h=0123abcd&sampler=one_step&steps=1&m2=https://example.org:8443/a%2520b/t.safetensors?x=1%26y=2\
                &sampler2=heun&steps2=18&m3=fashion-sid&steps3=2&m4=fashion-sid&h4=89abcdef&seed=18446744073709551615&n=64&c=3&w=1.5\
                &i=63&seed2=7&c2=9&t=1000&show=x0&view=compare&embed=1&theme=dark&flag";
    let link = clean(text);
    assert_eq!(link.models[0].source.as_ref().unwrap().id(), Some("fashion-boot"));
    assert_eq!(link.models[1].source.as_ref().unwrap().url(), Some("https://example.org:8443/a%20b/t.safetensors?x=1&y=2"));
    assert_eq!((link.models[0].sampler, link.models[1].steps), (Some(Sampler::OneStep), Some(18)));
    assert_eq!((link.seed, link.count, link.class, link.guidance, link.view), (u64::MAX, 64, Class::Index(3), Some(1.5), View::Compare));
    assert_eq!((link.models[2].steps, link.models[3].sha256.as_deref()), (Some(2), Some("89abcdef")));
    assert_eq!((link.image, link.seed2, link.class2, link.place), (Some(63), Some(7), Some(9), Some(WHOLE)));
    assert!(link.estimate && link.embed);
    assert_eq!(link.unknown(), ["theme=dark", "flag"]);
    assert_eq!(link.to_fragment(), text);
    assert_eq!(clean(&format!("#{text}")), link);
}

#[test]
fn defaults_are_left_out() {
    assert_eq!(Link::default().to_fragment(), "v=1");
    for text in ["", "#", "&&", "v=1&seed=0&n=16&c=each&view=draw&show=state&embed=0"] {
        assert_eq!(clean(text), Link::default(), "{text}");
    }
}

#[test]
fn values_out_of_bounds_fall_back() {
    let count = "a whole number from 1 to 64";
    for (text, key, expected) in [
        ("n=0", "n", count),
        ("n=65", "n", count),
        ("n=many", "n", count),
        ("n", "n", count),
        ("n=%FF", "n", "percent-encoded UTF-8"),
        ("n=%4", "n", "percent-encoded UTF-8"),
        ("steps=0", "steps", "a whole number from 1 to 1000"),
        ("steps2=1001", "steps2", "a whole number from 1 to 1000"),
        ("seed=18446744073709551616", "seed", "a whole number from 0 to 18446744073709551615"),
        ("seed=-1", "seed", "a whole number from 0 to 18446744073709551615"),
        ("c=all", "c", "`each`, or a whole number from 0 to 99999"),
        ("w=20.5", "w", "a number from 0 to 20"),
        ("w=NaN", "w", "a number from 0 to 20"),
        ("w=inf", "w", "a number from 0 to 20"),
        ("view=admin", "view", "one of draw, compare, path, travel, model, bench"),
        ("h=0123abc", "h", "8 to 64 hexadecimal digits of a SHA-256"),
        ("h=xyzxyzxyz", "h", "8 to 64 hexadecimal digits of a SHA-256"),
        ("sampler=warp", "sampler", "one of one_step, euler, ddim, ddim_clipped, heun, renoise, flow_map, flow_euler"),
        ("i=64", "i", "a whole number from 0 to 63"),
        ("t=1001", "t", "a whole number from 0 to 1000"),
        ("t=0.5", "t", "a whole number from 0 to 1000"),
        ("seed2=-1", "seed2", "a whole number from 0 to 18446744073709551615"),
        ("c2=each", "c2", "a whole number from 0 to 99999"),
        ("show=all", "show", "state or x0"),
        ("embed=yes", "embed", "0 or 1"),
        ("steps4=0", "steps4", "a whole number from 1 to 1000"),
        ("v=0", "v", "a whole number from 1 to 4294967295"),
    ] {
        assert_eq!(problem(text), (key.into(), expected.into()), "{text}");
        // The rest of the link still counts.
        let (link, _) = Link::parse(&format!("{text}&zoom=2"));
        assert_eq!(link.to_fragment(), "v=1&zoom=2", "{text}");
    }
    assert_eq!(clean("w=-0").to_fragment(), "v=1&w=0");
    assert_eq!(clean("h=ABCDEF01").models[0].sha256.as_deref(), Some("abcdef01"));
}

#[test]
fn addresses() {
    let id = "a".repeat(64);
    let url = format!("https://a/{}", "b".repeat(MAX_URL - 10));
    for good in [
        "fashion-teacher",
        &id,
        "https://example.org/x.safetensors",
        "https://example.org",
        "https://example.org?x",
        "http://localhost:8080/models/a.safetensors",
        "http://127.0.0.1/a",
        &url,
    ] {
        assert_eq!(Source::parse(good).unwrap().as_str(), good);
    }
    let long = format!("{id}a");
    let long_url = format!("{url}b");
    let escapes = format!("https://a/{}", "%41".repeat(MAX_URL / 5));
    for bad in [
        "",
        &long,
        "Fashion",
        "../secret",
        "a/b",
        "http://example.org/x",
        "http://localhost.example.org/x",
        "http://127.0.0.1.example.org/",
        "http://localhost@example.org/",
        "http://localhost\\@example.org/",
        "https://user:password@example.org/",
        "https://",
        "https:///x",
        "https://../x",
        "https:example.org",
        "HTTPS://example.org/",
        "https://example.org:/x",
        "https://example.org:99999/x",
        "https://example.org:+80/x",
        "https://ex%61mple.org/",
        "https://b\u{fc}cher.example/",
        "https://example.org/a b",
        "https://example.org/a\tb",
        "https://example.org/#x",
        "https://example.org/\"><script>",
        "javascript:alert(1)",
        "data:text/html,x",
        "file:///etc/passwd",
        "blob:https://example.org/1",
        &long_url,
        &escapes,
    ] {
        assert!(Source::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn versions() {
    assert_eq!(clean("seed=5").version, 1);
    let (link, problems) = Link::parse("v=2&seed=5&hue=3");
    assert_eq!(problems, [Problem::Version { found: 2 }]);
    assert_eq!((link.version, link.seed), (2, 5));
    assert_eq!(link.to_fragment(), "v=2&seed=5&hue=3");
}

#[test]
fn twice_and_too_long() {
    let (link, problems) = Link::parse("seed=1&seed=2");
    assert_eq!((link.seed, problems), (1, vec![Problem::Twice { key: "seed".into() }]));
    let long = format!("seed=1&x={}", "y".repeat(MAX_LENGTH - 9));
    assert_eq!(long.len(), MAX_LENGTH);
    // It fits as it came, but not with the version in front.
    let (link, problems) = Link::parse(&long);
    assert_eq!(link.to_fragment(), "v=1&seed=1");
    assert!(matches!(&problems[..], [Problem::Dropped { pair }] if pair.starts_with("x=yyy")), "{problems:?}");
    let (link, problems) = Link::parse(&format!("{long}y"));
    assert_eq!((link, problems), (Link::default(), vec![Problem::TooLong { found: MAX_LENGTH + 1 }]));
}

#[test]
fn unknown_pairs_cannot_leave_the_fragment() {
    let (link, _) = Link::parse("a=%20%zz\"<b>#\u{e9}&=&x=1=2");
    assert_eq!(link.unknown(), ["a=%20%zz%22%3Cb%3E%23%C3%A9", "=", "x=1=2"]);
    assert_eq!(clean(&link.to_fragment()), link);
}

#[test]
fn the_longest_known_link_fits() {
    let url = format!("https://a/{}", "b".repeat(MAX_URL - 10));
    let choice = Choice {
        source: Some(Source::parse(&url).unwrap()),
        sha256: Some("a".repeat(64)),
        sampler: Some(Sampler::FlowEuler),
        steps: Some(1000),
    };
    let link = Link {
        version: u32::MAX,
        models: [choice.clone(), choice.clone(), choice.clone(), choice],
        seed: u64::MAX,
        count: 64,
        class: Class::Index(MAX_CLASS),
        guidance: Some(1.234_567_890_123_456_7e-301),
        image: Some(63),
        seed2: Some(u64::MAX),
        class2: Some(MAX_CLASS),
        place: Some(WHOLE),
        estimate: true,
        view: View::Compare,
        embed: true,
        unknown: vec![],
    };
    let text = link.to_fragment();
    assert!(text.len() <= MAX_LENGTH, "{}", text.len());
    assert_eq!(Link::parse(&text), (link, vec![Problem::Version { found: u32::MAX }]));
}

/// Links of the shipped models, with every option set, stay short enough for messages and codes.
#[test]
fn links_of_shipped_models_are_short() {
    let model = |name: &str, steps: u32, suffix: &str| format!("&m{suffix}={name}&h{suffix}=0123456789abcdef&steps{suffix}={steps}");
    let models = [model("fashion-boot", 1, ""), model("fashion-teacher", 18, "2"), model("fashion-sid", 4, "3")].concat();
    let text = format!("v=1{models}&seed=123456&n=64&c=3&w=1.5&i=12&seed2=654321&c2=9&t=500&show=x0&view=compare&embed=1");
    assert_eq!(clean(&text).to_fragment(), text);
    assert!(text.len() < 300, "{}", text.len());
}

fn source() -> impl Strategy<Value = Source> {
    prop_oneof![
        "[a-z0-9-]{1,64}",
        "https://[a-z0-9][a-z0-9.-]{0,30}(:[1-9][0-9]{0,3})?(/[!$-;=?-Z_a-z~]{0,40}){0,3}",
        "http://(localhost|127\\.0\\.0\\.1)(:8080)?/[%&=+a-z0-9?]{0,40}",
    ]
    .prop_map(|s| Source::parse(&s).expect(&s))
}

fn choice() -> impl Strategy<Value = Choice> {
    let sampler = prop::option::of(prop::sample::select(&Sampler::ALL[..]));
    (prop::option::of(source()), prop::option::of("[0-9a-f]{8,64}"), sampler, prop::option::of(1..=MAX_STEPS))
        .prop_map(|(source, sha256, sampler, steps)| Choice { source, sha256, sampler, steps })
}

fn link() -> impl Strategy<Value = Link> {
    let class = prop_oneof![Just(Class::Each), (0..=MAX_CLASS).prop_map(Class::Index)];
    let guidance = prop::option::of(prop_oneof![0.0..=MAX_GUIDANCE, (0..=20u32).prop_map(f64::from), Just(f64::MIN_POSITIVE)]);
    let view = prop::sample::select(&View::ALL[..]).prop_map(|v| v.0);
    let seed = prop_oneof![any::<u64>(), 0..3u64];
    // Not a known key: those have no upper-case letters.
    let unknown = prop::collection::vec("[A-Z%]{1,5}(=[A-Za-z0-9%+=?/:.-]{0,10})?", 0..4);
    let models = [choice(), choice(), choice(), choice()];
    let places = (prop::option::of(0..MAX_COUNT), prop::option::of(any::<u64>()), prop::option::of(0..=MAX_CLASS));
    let flags = (prop::option::of(0..=WHOLE), any::<bool>(), any::<bool>());
    (models, seed, 1..=MAX_COUNT, class, guidance, places, flags, view, unknown).prop_map(
        |(models, seed, count, class, guidance, (image, seed2, class2), (place, estimate, embed), view, unknown)| Link {
            version: 1,
            models,
            seed,
            count,
            class,
            guidance,
            image,
            seed2,
            class2,
            place,
            estimate,
            view,
            embed,
            unknown,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn round_trip(link in link()) {
        let text = link.to_fragment();
        prop_assert!(text.bytes().all(|b| b.is_ascii_graphic() && b != b'#'), "{}", text);
        prop_assert_eq!(Link::parse(&text), (link, vec![]));
    }

    #[test]
    fn any_text_gives_a_link_that_round_trips(text in "\\PC{0,300}") {
        let (link, _) = Link::parse(&text);
        prop_assert_eq!(Link::parse(&link.to_fragment()).0, link);
    }

    #[test]
    fn near_links_too(pairs in prop::collection::vec(("(v|m[1-5]?|h4?|sampler2?|steps[23]?|seed2?|n|c2?|w|i|t|show|view|embed|x|%6D)", "=?", "[#&%a-z0-9:/.-]{0,400}"), 0..12)) {
        let text: Vec<String> = pairs.iter().map(|(k, e, v)| format!("{k}{e}{v}")).collect();
        let (link, problems) = Link::parse(&text.join("&"));
        let fragment = link.to_fragment();
        prop_assert!(fragment.len() <= MAX_LENGTH);
        prop_assert_eq!(Link::parse(&fragment).0, link);
        prop_assert!(problems.iter().all(|p| p.to_string().len() < 400));
    }
}
