//! The bytes of requests.

use http::Method;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use crate::plan::{Pick, Plan, Request, Target, Template};

/// Decimal digits of the largest number.
const DIGITS: usize = 20;

/// What is known of a request beforehand.
#[derive(Debug)]
enum Shape {
    /// All of it.
    Fixed(Vec<u8>),
    /// All but its number, which goes between.
    Numbered { before: Vec<u8>, after: Vec<u8> },
    /// Some of it.
    Filled(Box<Filled>),
}

/// A request with places.
#[derive(Debug)]
struct Filled {
    method: Method,
    path: Template,
    /// `Host` and the like: whole lines.
    lines: Vec<u8>,
    headers: Vec<(Vec<u8>, Template)>,
    /// The line with the id, up to its number.
    id: Option<Vec<u8>>,
    /// Whether the user has not said it.
    length: bool,
    body: Template,
}

#[derive(Debug)]
struct Rendered {
    shape: Shape,
    bodiless: bool,
}

/// Makes the bytes of each request: literal ones once, the others as they are sent.
#[derive(Debug)]
pub struct Renderer {
    targets: Vec<Vec<Rendered>>,
    rng: SmallRng,
    out: Vec<u8>,
    body: Vec<u8>,
}

impl Renderer {
    /// Returns the renderer of a plan's requests for one of its lanes.
    pub fn new(plan: &Plan, lane: usize) -> Self {
        let id = plan
            .request_ids
            .as_ref()
            .map(|prefix| format!("X-Request-Id: {prefix}-").into_bytes());
        let targets = plan.targets.iter().map(|target| {
            let requests = target.requests.iter();
            requests
                .map(|request| rendered(target, request, id.as_deref()))
                .collect()
        });
        Self {
            targets: targets.collect(),
            rng: SmallRng::seed_from_u64(plan.seed ^ (lane as u64) << 32),
            out: Vec::new(),
            body: Vec::new(),
        }
    }

    /// Returns whether the answer has no body whatever it says: to a HEAD.
    pub fn is_bodiless(&self, pick: Pick) -> bool {
        self.of(pick).bodiless
    }

    fn of(&self, pick: Pick) -> &Rendered {
        &self.targets[usize::from(pick.target)][pick.request as usize]
    }

    /// Returns the bytes of request `number`.
    pub fn render(&mut self, pick: Pick, number: u64) -> &[u8] {
        let out = &mut self.out;
        match &self.targets[usize::from(pick.target)][pick.request as usize].shape {
            Shape::Fixed(bytes) => return bytes,
            Shape::Numbered { before, after } => {
                out.clear();
                out.extend_from_slice(before);
                decimal(number, out);
                out.extend_from_slice(after);
            }
            Shape::Filled(filled) => {
                out.clear();
                self.body.clear();
                filled.render(number, &mut self.rng, &mut self.body, out);
            }
        }
        out
    }
}

fn rendered(target: &Target, request: &Request, id: Option<&[u8]>) -> Rendered {
    let gave = |name: &str| request.headers.iter().any(|(given, _)| given == name);
    let mut lines = Vec::new();
    if !gave("host") {
        line(b"Host: ", target.authority.as_bytes(), &mut lines);
    }
    let asks_for_body = [Method::POST, Method::PUT, Method::PATCH].contains(&request.method);
    let filled = Filled {
        method: request.method.clone(),
        path: request.path.clone(),
        lines,
        headers: request
            .headers
            .iter()
            .map(|(name, value)| (format!("{name}: ").into_bytes(), value.clone()))
            .collect(),
        id: id.map(<[u8]>::to_vec),
        length: !gave("content-length")
            && !gave("transfer-encoding")
            && (asks_for_body || !request.body.parts.is_empty()),
        body: request.body.clone(),
    };
    Rendered {
        bodiless: request.method == Method::HEAD,
        shape: filled.simplified(),
    }
}

impl Filled {
    fn simplified(mut self) -> Shape {
        let is_literal = self.path.is_literal()
            && self.body.is_literal()
            && self.headers.iter().all(|(_, value)| value.is_literal());
        if !is_literal {
            return Shape::Filled(Box::new(self));
        }
        // Literal templates draw nothing from it.
        let mut rng = SmallRng::seed_from_u64(0);
        let mut all = |filled: &Self| {
            let (mut out, mut body) = (Vec::new(), Vec::new());
            filled.render(0, &mut rng, &mut body, &mut out);
            out
        };
        let Some(id) = self.id.take() else {
            return Shape::Fixed(all(&self));
        };
        let mut before = self.first_lines();
        let head = before.len();
        before.extend_from_slice(&id);
        let after = [b"\r\n", &all(&self)[head..]].concat();
        Shape::Numbered { before, after }
    }

    /// Returns the lines before the id of a request whose path is literal.
    fn first_lines(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.begin(0, &mut SmallRng::seed_from_u64(0), &mut out);
        out
    }

    fn begin(&self, number: u64, rng: &mut SmallRng, out: &mut Vec<u8>) {
        out.extend_from_slice(self.method.as_str().as_bytes());
        out.push(b' ');
        self.path.render(number, rng, out);
        out.extend_from_slice(b" HTTP/1.1\r\n");
        out.extend_from_slice(&self.lines);
    }

    fn render(&self, number: u64, rng: &mut SmallRng, body: &mut Vec<u8>, out: &mut Vec<u8>) {
        self.begin(number, rng, out);
        if let Some(id) = &self.id {
            out.extend_from_slice(id);
            decimal(number, out);
            out.extend_from_slice(b"\r\n");
        }
        for (name, value) in &self.headers {
            out.extend_from_slice(name);
            value.render(number, rng, out);
            out.extend_from_slice(b"\r\n");
        }
        self.body.render(number, rng, body);
        if self.length {
            out.extend_from_slice(b"Content-Length: ");
            decimal(body.len() as u64, out);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(body);
    }
}

fn line(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name);
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Appends a number without the machinery of `format!`, which costs ten times as much.
fn decimal(mut number: u64, out: &mut Vec<u8>) {
    let mut digits = [0; DIGITS];
    let mut at = DIGITS;
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Pick = Pick {
        target: 0,
        request: 0,
    };

    fn plan(request: Request) -> Plan {
        let mut plan = Plan::http("http://127.0.0.1:81/").expect("a plan");
        plan.targets[0].requests = vec![request];
        plan
    }

    fn bytes(plan: &Plan, number: u64) -> String {
        let mut renderer = Renderer::new(plan, 0);
        let first = renderer.render(FIRST, number).to_vec();
        // What is kept of one request must not show in the next.
        renderer.render(FIRST, u64::MAX);
        assert_eq!(renderer.render(FIRST, number), first);
        String::from_utf8(first).expect("text")
    }

    fn template(text: &str) -> Template {
        Template::parse(text).expect("parses")
    }

    #[test]
    fn literal_request_is_the_bytes_of_the_rfc() {
        let mut plan = plan(Request::get(template("/a?b")));
        assert_eq!(
            bytes(&plan, 7),
            "GET /a?b HTTP/1.1\r\nHost: 127.0.0.1:81\r\n\r\n"
        );
        plan.request_ids = Some("run".to_owned());
        assert_eq!(
            bytes(&plan, 1234),
            "GET /a?b HTTP/1.1\r\nHost: 127.0.0.1:81\r\nX-Request-Id: run-1234\r\n\r\n"
        );
    }

    #[test]
    fn body_has_its_length_and_users_headers_come_first() {
        let mut post = Request::get(template("/"));
        post.method = Method::POST;
        let mut all = plan(post.clone());
        assert!(bytes(&all, 0).ends_with("\r\nContent-Length: 0\r\n\r\n"));
        post.body = template("hello");
        post.headers = vec![("accept".to_owned(), template("*/*"))];
        all = plan(post.clone());
        all.request_ids = Some("p".to_owned());
        assert_eq!(
            bytes(&all, 0),
            "POST / HTTP/1.1\r\nHost: 127.0.0.1:81\r\nX-Request-Id: p-0\r\naccept: */*\r\n\
             Content-Length: 5\r\n\r\nhello"
        );
        post.headers = vec![
            ("host".to_owned(), template("other")),
            ("content-length".to_owned(), template("3")),
        ];
        assert_eq!(
            bytes(&plan(post), 0),
            "POST / HTTP/1.1\r\nhost: other\r\ncontent-length: 3\r\n\r\nhello"
        );
    }

    #[test]
    fn places_are_filled_in_and_the_length_follows() {
        let mut put = Request::get(template("/{{counter}}"));
        put.method = Method::PUT;
        put.headers = vec![("x".to_owned(), template("{{counter}}"))];
        put.body = template("n={{counter}}");
        let mut all = plan(put);
        all.request_ids = Some("t".to_owned());
        assert_eq!(
            bytes(&all, 42),
            "PUT /42 HTTP/1.1\r\nHost: 127.0.0.1:81\r\nX-Request-Id: t-42\r\nx: 42\r\n\
             Content-Length: 4\r\n\r\nn=42"
        );
    }

    #[test]
    fn only_answers_to_head_have_no_body() {
        let mut head = Request::get(template("/"));
        assert!(!Renderer::new(&plan(head.clone()), 0).is_bodiless(FIRST));
        head.method = Method::HEAD;
        assert!(Renderer::new(&plan(head), 0).is_bodiless(FIRST));
    }
}
