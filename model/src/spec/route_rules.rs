//! Proves a route: what it matches and what is done.

use std::str::FromStr as _;

use super::validate::too_many;
use super::{
    Cors, FieldMatch, FixedAnswer, HeaderEdits, InvalidSpec, Network, PasswordDigest, PathTemplate,
    RequestKey, RouteActions, RouteMatch,
};
use crate::limits;

/// Fields that belong to a connection or to the framing of a message: nobody may edit them.
const FRAMING: [&str; 9] = [
    "connection",
    "content-length",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
];

/// Proves one route; `place` is its path in the spec, such as `routes[0]`.
///
/// # Errors
/// The first field that is wrong, with the reason.
pub fn validate_route(
    place: &str,
    path_prefix: &str,
    when: &RouteMatch,
    then: &RouteActions,
) -> Result<(), InvalidSpec> {
    let at = |field: &str| format!("{place}.{field}");
    if !path_prefix.starts_with('/') {
        let nearest = format!("/{path_prefix}");
        let reason = "a path begins with /";
        return Err(InvalidSpec::new(at("path_prefix"), reason, Some(&nearest)));
    }
    let size = path_prefix.len() + when.path.as_ref().map_or(0, String::len);
    if size > limits::ROUTE_TEXT_BYTES {
        return Err(too_long(&at("path_prefix")));
    }
    let template = validate_match(&at("when"), path_prefix, when)?;
    let then_at = |field: &str| at(&format!("then.{field}"));
    validate_edits(&then_at("request_headers"), &then.request_headers)?;
    validate_edits(&then_at("response_headers"), &then.response_headers)?;
    validate_targets(&then_at("rewrite"), template.as_ref(), then)?;
    validate_redirect(&then_at("redirect"), template.as_ref(), then)?;
    validate_split(&then_at("split"), then)?;
    validate_rate(&then_at("rate_limit"), then)?;
    validate_access(&then_at("access"), then)?;
    for (name, answer) in [
        ("maintenance", &then.maintenance),
        ("fallback", &then.fallback),
    ] {
        if let Some(answer) = answer {
            validate_answer(&then_at(name), answer)?;
        }
    }
    if let Some(cors) = &then.cors {
        validate_cors(&then_at("cors"), cors)?;
    }
    if let Some(compression) = &then.compression
        && (compression.algorithms.is_empty() || compression.types.len() > limits::ROUTE_RULES)
    {
        let reason = "names at least one algorithm";
        return Err(InvalidSpec::new(then_at("compression"), reason, None));
    }
    validate_timeouts(&then_at("timeouts"), then)
}

fn too_long(field: &str) -> InvalidSpec {
    let reason = format!("is longer than {} bytes", limits::ROUTE_TEXT_BYTES);
    InvalidSpec::new(field, reason, None)
}

fn validate_match(
    place: &str,
    path_prefix: &str,
    when: &RouteMatch,
) -> Result<Option<PathTemplate>, InvalidSpec> {
    let field = |name: &str| format!("{place}.{name}");
    let template = match &when.path {
        None => None,
        Some(_) if path_prefix != "/" => {
            let reason = "stands instead of `path_prefix`: give one of them";
            return Err(InvalidSpec::new(field("path"), reason, None));
        }
        Some(path) => Some(
            PathTemplate::from_str(path)
                .map_err(|error| InvalidSpec::new(field("path"), error.to_string(), None))?,
        ),
    };
    if when.methods.len() > limits::ROUTE_RULES {
        return Err(too_many(&field("methods"), limits::ROUTE_RULES));
    }
    for method in &when.methods {
        if !is_token(method) || method.bytes().any(|byte| byte.is_ascii_lowercase()) {
            let nearest = method.to_ascii_uppercase();
            let reason = "a method has capital letters, such as GET";
            return Err(InvalidSpec::new(field("methods"), reason, Some(&nearest)));
        }
    }
    for (name, list) in [
        ("headers", &when.headers),
        ("query", &when.query),
        ("cookies", &when.cookies),
    ] {
        validate_fields(&field(name), list)?;
    }
    Ok(template)
}

fn validate_fields(place: &str, list: &[FieldMatch]) -> Result<(), InvalidSpec> {
    if list.len() > limits::ROUTE_RULES {
        return Err(too_many(place, limits::ROUTE_RULES));
    }
    for one in list {
        let said = [one.exact.is_some(), one.prefix.is_some(), one.absent];
        if one.name.is_empty() || said.into_iter().filter(|said| *said).count() > 1 {
            let reason = "has a `name` and at most one of `exact`, `prefix`, `absent`";
            return Err(InvalidSpec::new(place, reason, None));
        }
        let text = [&one.exact, &one.prefix].into_iter().flatten();
        if text.map(String::len).sum::<usize>() + one.name.len() > limits::ROUTE_TEXT_BYTES {
            return Err(too_long(place));
        }
    }
    Ok(())
}

fn validate_edits(place: &str, edits: &HeaderEdits) -> Result<(), InvalidSpec> {
    let most = limits::ROUTE_RULES;
    if edits.set.len() + edits.add.len() + edits.remove.len() > most {
        return Err(too_many(place, most));
    }
    let names = edits
        .set
        .keys()
        .chain(edits.add.keys())
        .chain(&edits.remove);
    for name in names {
        validate_name(place, name)?;
    }
    for value in edits.set.values().chain(edits.add.values()) {
        validate_value(place, value)?;
    }
    Ok(())
}

fn validate_name(place: &str, name: &str) -> Result<(), InvalidSpec> {
    let shown: String = name.chars().take(32).collect();
    if !is_token(name) {
        let reason = format!("`{shown}` is not the name of a header field");
        return Err(InvalidSpec::new(place, reason, None));
    }
    if FRAMING
        .iter()
        .any(|framing| framing.eq_ignore_ascii_case(name))
    {
        let reason = format!("`{shown}` frames the message and cannot be changed");
        return Err(InvalidSpec::new(place, reason, None));
    }
    Ok(())
}

fn validate_value(place: &str, value: &str) -> Result<(), InvalidSpec> {
    if value.len() > limits::ROUTE_TEXT_BYTES {
        return Err(too_long(place));
    }
    if value.trim() != value
        || value
            .bytes()
            .any(|byte| byte < b' ' && byte != b'\t' || byte == 127)
    {
        let reason = "a value holds no control characters and no spaces around it";
        return Err(InvalidSpec::new(place, reason, Some(value.trim())));
    }
    Ok(())
}

fn is_token(text: &str) -> bool {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.len() <= limits::LABEL_BYTES && text.bytes().all(token)
}

fn validate_path(
    place: &str,
    template: Option<&PathTemplate>,
    path: Option<&String>,
    prefix: Option<&String>,
) -> Result<(), InvalidSpec> {
    if path.is_some() && prefix.is_some() {
        let reason = "`prefix` and `path` exclude each other";
        return Err(InvalidSpec::new(place, reason, None));
    }
    if prefix.is_some() && template.is_some() {
        let reason = "`prefix` needs a route by `path_prefix`";
        return Err(InvalidSpec::new(place, reason, None));
    }
    for text in [path, prefix].into_iter().flatten() {
        if !text.starts_with('/') || text.len() > limits::ROUTE_TEXT_BYTES {
            let nearest = format!("/{text}");
            let reason = "a path begins with /";
            return Err(InvalidSpec::new(place, reason, Some(&nearest)));
        }
        if text.bytes().any(|byte| byte <= b' ' || byte >= 127) {
            let reason = "a path has no spaces or other characters that must be encoded";
            return Err(InvalidSpec::new(place, reason, None));
        }
    }
    if let Some(path) = path {
        let known = match template {
            Some(template) => template.has_names_of(path),
            None => !path.contains('{'),
        };
        if !known {
            let reason = "names in `{}` are those of the route's `path`";
            return Err(InvalidSpec::new(place, reason, None));
        }
    }
    Ok(())
}

fn validate_targets(
    place: &str,
    template: Option<&PathTemplate>,
    then: &RouteActions,
) -> Result<(), InvalidSpec> {
    let Some(rewrite) = &then.rewrite else {
        return Ok(());
    };
    validate_path(
        place,
        template,
        rewrite.path.as_ref(),
        rewrite.prefix.as_ref(),
    )?;
    if let Some(host) = &rewrite.host {
        validate_host(place, host)?;
    }
    Ok(())
}

fn validate_host(place: &str, host: &str) -> Result<(), InvalidSpec> {
    let ok = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
    if host.is_empty() || host.len() > 255 || !host.bytes().all(ok) {
        let reason = "is a host name, with a port or without";
        return Err(InvalidSpec::new(format!("{place}.host"), reason, None));
    }
    Ok(())
}

fn validate_redirect(
    place: &str,
    template: Option<&PathTemplate>,
    then: &RouteActions,
) -> Result<(), InvalidSpec> {
    let Some(redirect) = &then.redirect else {
        return Ok(());
    };
    if ![301, 302, 303, 307, 308].contains(&redirect.status) {
        let field = format!("{place}.status");
        let reason = "is 301, 302, 303, 307 or 308";
        return Err(InvalidSpec::new(field, reason, Some("308")));
    }
    if let Some(scheme) = &redirect.scheme
        && !["http", "https"].contains(&scheme.as_str())
    {
        let field = format!("{place}.scheme");
        return Err(InvalidSpec::new(field, "is http or https", Some("https")));
    }
    let changes = [
        redirect.scheme.is_some(),
        redirect.host.is_some(),
        redirect.port.is_some(),
        redirect.prefix.is_some(),
        redirect.path.is_some(),
    ];
    if !changes.contains(&true) {
        let reason = "changes nothing: the client would come back";
        return Err(InvalidSpec::new(place, reason, None));
    }
    validate_path(
        place,
        template,
        redirect.path.as_ref(),
        redirect.prefix.as_ref(),
    )?;
    if let Some(host) = &redirect.host {
        validate_host(place, host)?;
    }
    Ok(())
}

fn validate_split(place: &str, then: &RouteActions) -> Result<(), InvalidSpec> {
    if then.split.to.len() > limits::ROUTE_RULES {
        return Err(too_many(place, limits::ROUTE_RULES));
    }
    let sum: u64 = then.split.to.iter().map(|to| u64::from(to.weight)).sum();
    if !then.split.to.is_empty() && (sum == 0 || sum > u64::from(limits::SPLIT_WEIGHTS)) {
        let most = limits::SPLIT_WEIGHTS;
        let reason = format!("the weights' sum is 1 to {most}");
        return Err(InvalidSpec::new(place, reason, Some("100")));
    }
    if let Some(mirror) = &then.mirror
        && mirror.percent > 100
    {
        let field = place.replace("split", "mirror.percent");
        return Err(InvalidSpec::new(field, "is 0 to 100", Some("100")));
    }
    Ok(())
}

fn validate_rate(place: &str, then: &RouteActions) -> Result<(), InvalidSpec> {
    let keys = then.rate_limit.iter().map(|limit| &limit.by);
    for key in keys.chain(&then.split.by) {
        if let RequestKey::Header(name) | RequestKey::Cookie(name) | RequestKey::Query(name) = key
            && !is_token(name)
        {
            let field = format!("{place}.by");
            return Err(InvalidSpec::new(field, "is the name of a field", None));
        }
    }
    let Some(limit) = &then.rate_limit else {
        return Ok(());
    };
    if limit.requests == 0 || limit.burst == Some(0) {
        let reason = "`requests` and `burst` are at least 1; `maintenance` closes a route";
        return Err(InvalidSpec::new(place, reason, Some("1")));
    }
    if limit.per.0 == 0 || limit.per > limits::LONGEST_RATE_SPAN {
        let most = limits::LONGEST_RATE_SPAN.to_string();
        let field = format!("{place}.per");
        let reason = format!("is 1ms to {most}");
        return Err(InvalidSpec::new(field, reason, Some(&most)));
    }
    Ok(())
}

fn validate_access(place: &str, then: &RouteActions) -> Result<(), InvalidSpec> {
    let access = &then.access;
    if access.allow.len() + access.deny.len() > limits::ROUTE_NETWORKS {
        return Err(too_many(place, limits::ROUTE_NETWORKS));
    }
    for text in access.allow.iter().chain(&access.deny) {
        if let Err(error) = text.parse::<Network>() {
            return Err(InvalidSpec::new(place, error.to_string(), None));
        }
    }
    let Some(basic) = &access.basic else {
        return Ok(());
    };
    let place = format!("{place}.basic");
    validate_value(&place, &basic.realm)?;
    if basic.users.is_empty() || basic.users.len() > limits::ROUTE_USERS {
        let reason = format!("has 1 to {} users", limits::ROUTE_USERS);
        return Err(InvalidSpec::new(place, reason, None));
    }
    for (user, digest) in &basic.users {
        if user.contains(':') {
            return Err(InvalidSpec::new(place, "a user name has no colon", None));
        }
        if let Err(error) = digest.parse::<PasswordDigest>() {
            let field = format!("{place}.users.{user}");
            return Err(InvalidSpec::new(field, error.to_string(), None));
        }
    }
    Ok(())
}

fn validate_answer(place: &str, answer: &FixedAnswer) -> Result<(), InvalidSpec> {
    if !(200..=599).contains(&answer.status) {
        let field = format!("{place}.status");
        return Err(InvalidSpec::new(field, "is 200 to 599", Some("503")));
    }
    if answer.body.len() > limits::ROUTE_ANSWER_BYTES {
        let reason = format!("has at most {} bytes", limits::ROUTE_ANSWER_BYTES);
        return Err(InvalidSpec::new(format!("{place}.body"), reason, None));
    }
    validate_value(place, &answer.content_type)?;
    if answer.headers.len() > limits::ROUTE_RULES {
        return Err(too_many(place, limits::ROUTE_RULES));
    }
    for (name, value) in &answer.headers {
        validate_name(place, name)?;
        validate_value(place, value)?;
    }
    Ok(())
}

fn validate_cors(place: &str, cors: &Cors) -> Result<(), InvalidSpec> {
    let lists = [&cors.origins, &cors.methods, &cors.headers, &cors.expose];
    if lists.iter().any(|list| list.len() > limits::ROUTE_RULES) {
        return Err(too_many(place, limits::ROUTE_RULES));
    }
    let any = cors.origins.iter().any(|origin| origin == "*");
    if any && cors.credentials {
        let reason = "`*` with credentials would let every site act as the user: name the origins";
        return Err(InvalidSpec::new(place, reason, None));
    }
    for origin in &cors.origins {
        let schemed = ["http://", "https://"]
            .iter()
            .any(|scheme| origin.starts_with(scheme));
        if origin != "*" && (!schemed || origin.ends_with('/')) {
            let reason = "an origin is https://HOST, https://*.HOST or *";
            return Err(InvalidSpec::new(format!("{place}.origins"), reason, None));
        }
        validate_value(place, origin)?;
    }
    let names = cors.methods.iter().chain(&cors.headers).chain(&cors.expose);
    for name in names {
        if !is_token(name) {
            let reason = "names methods and header fields";
            return Err(InvalidSpec::new(place, reason, None));
        }
    }
    Ok(())
}

fn validate_timeouts(place: &str, then: &RouteActions) -> Result<(), InvalidSpec> {
    let spans = &then.timeouts;
    for (name, span) in [
        ("connect", spans.connect),
        ("read", spans.read),
        ("write", spans.write),
        ("attempt", spans.attempt),
        ("whole", spans.whole),
        ("hedge", spans.hedge),
    ] {
        let Some(span) = span else { continue };
        if span.0 == 0 || span > limits::LONGEST_SPAN {
            let most = limits::LONGEST_SPAN.to_string();
            let reason = format!("is 1ms to {most}");
            let field = format!("{place}.{name}");
            let nearest = if span.0 == 0 { "1ms" } else { &most };
            return Err(InvalidSpec::new(field, reason, Some(nearest)));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Millis, RateLimit, Redirect, Rewrite, SplitTarget};

    fn prove(when: RouteMatch, then: RouteActions) -> Result<(), String> {
        validate_route("routes[0]", "/", &when, &then).map_err(|error| error.field)
    }

    fn with(change: impl FnOnce(&mut RouteActions)) -> RouteActions {
        let mut then = RouteActions::default();
        change(&mut then);
        then
    }

    #[test]
    fn mistakes_are_named_by_their_field() {
        let path = |path: &str| RouteMatch {
            path: Some(path.to_owned()),
            ..RouteMatch::default()
        };
        let plain = RouteMatch::default;
        let wrong = [
            (
                "routes[0].when.path",
                path("users"),
                RouteActions::default(),
            ),
            (
                "routes[0].then.rewrite",
                path("/{id}"),
                with(|then| {
                    then.rewrite = Some(Rewrite {
                        path: Some("/{other}".to_owned()),
                        ..Rewrite::default()
                    });
                }),
            ),
            (
                "routes[0].then.redirect",
                plain(),
                with(|then| then.redirect = Some(Redirect::default())),
            ),
            (
                "routes[0].then.request_headers",
                plain(),
                with(|then| {
                    then.request_headers.remove = vec!["Content-Length".to_owned()];
                }),
            ),
            (
                "routes[0].then.response_headers",
                plain(),
                with(|then| {
                    let value = "a\r\nset-cookie: b".to_owned();
                    then.response_headers.set.insert("x".to_owned(), value);
                }),
            ),
        ];
        for (field, when, then) in wrong {
            assert_eq!(prove(when, then), Err(field.to_owned()));
        }
        assert_eq!(prove(path("/{id}"), RouteActions::default()), Ok(()));
        assert_eq!(prove(plain(), RouteActions::default()), Ok(()));
    }

    #[test]
    fn shares_limits_and_lists_have_bounds() {
        let plain = RouteMatch::default;
        let wrong = [
            (
                "routes[0].then.split",
                plain(),
                with(|then| {
                    then.split.to = vec![SplitTarget {
                        service: "a".to_owned(),
                        weight: 0,
                    }];
                }),
            ),
            (
                "routes[0].then.rate_limit",
                plain(),
                with(|then| {
                    then.rate_limit = Some(RateLimit {
                        requests: 0,
                        per: Millis(1000),
                        burst: None,
                        by: RequestKey::Client,
                    });
                }),
            ),
            (
                "routes[0].then.access",
                plain(),
                with(|then| then.access.allow = vec!["here".to_owned()]),
            ),
            (
                "routes[0].then.cors",
                plain(),
                with(|then| {
                    then.cors = Some(Cors {
                        origins: vec!["*".to_owned()],
                        credentials: true,
                        ..Cors::default()
                    });
                }),
            ),
        ];
        for (field, when, then) in wrong {
            assert_eq!(prove(when, then), Err(field.to_owned()));
        }
    }

    #[test]
    fn password_is_not_repeated_in_the_error() {
        let then = with(|then| {
            let users = [("ann".to_owned(), "hunter2".to_owned())];
            then.access.basic = Some(crate::BasicAuth {
                realm: "x".to_owned(),
                users: users.into(),
            });
        });
        let error = validate_route("r", "/", &RouteMatch::default(), &then).expect_err("no digest");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}
