//! Users and groups, from `/etc/passwd` and `/etc/group`.
//!
//! Deliberately absent: other sources of the name service switch (LDAP, systemd's): they need the
//! C library's resolver, which no safe interface reaches. Numeric ids work for those users.

use std::fs;
use std::io;

use serde::{Deserialize, Serialize};

/// Whom a task runs as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// All groups it is in.
    pub groups: Vec<u32>,
    /// Its name, where it has one.
    pub name: Option<String>,
    /// Its home folder, where it has one.
    pub home: Option<String>,
}

/// Why there is no such user.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// Not in `/etc/passwd`.
    #[error("no such user `{0}`")]
    NoUser(String),
    /// Not in `/etc/group`.
    #[error("no such group `{0}`")]
    NoGroup(String),
    /// The files cannot be read.
    #[error("cannot read {0}: {1}")]
    Read(&'static str, io::Error),
}

/// Finds `USER[:GROUP]`, each a name or a number.
///
/// # Errors
/// [`UserError`], naming what there is not.
pub fn find(text: &str) -> Result<User, UserError> {
    let read = |path| fs::read_to_string(path).map_err(|error| UserError::Read(path, error));
    find_in(text, &read("/etc/passwd")?, &read("/etc/group")?)
}

fn find_in(text: &str, passwd: &str, group: &str) -> Result<User, UserError> {
    let (user, wanted_group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let number = user.parse::<u32>().ok();
    let entry = passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| {
            fields.len() >= 6
                && (fields[0] == user || number.is_some() && fields[2].parse().ok() == number)
        });
    let (uid, primary) = match (&entry, number) {
        (Some(fields), _) => {
            let bad = || UserError::NoUser(user.to_owned());
            let id = |place: usize| fields[place].parse::<u32>().map_err(|_| bad());
            (id(2)?, id(3)?)
        }
        (None, Some(number)) => (number, number),
        (None, None) => return Err(UserError::NoUser(user.to_owned())),
    };
    let name = entry.as_ref().map(|fields| fields[0].to_owned());
    let groups = group
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>());
    let groups: Vec<_> = groups.filter(|fields| fields.len() >= 4).collect();
    let gid = match wanted_group {
        None => primary,
        Some(wanted) => match wanted.parse() {
            Ok(gid) => gid,
            Err(_) => groups
                .iter()
                .find(|fields| fields[0] == wanted)
                .and_then(|fields| fields[2].parse().ok())
                .ok_or_else(|| UserError::NoGroup(wanted.to_owned()))?,
        },
    };
    let mut member_of = vec![gid];
    for fields in &groups {
        let is_in = name
            .as_deref()
            .is_some_and(|name| fields[3].split(',').any(|m| m == name));
        if let Ok(id) = fields[2].parse()
            && is_in
            && !member_of.contains(&id)
        {
            member_of.push(id);
        }
    }
    Ok(User {
        uid,
        gid,
        groups: member_of,
        home: entry.as_ref().map(|fields| fields[5].to_owned()),
        name,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nbad line\nwww:x:33:33::/var/www:/bin/no\n";
    const GROUP: &str = "root:x:0:\nwww:x:33:\nlogs:x:4:root,www\n";

    #[test]
    fn names_and_numbers_with_and_without_group() {
        let user = find_in("www", PASSWD, GROUP).expect("known");
        assert_eq!((user.uid, user.gid, user.groups), (33, 33, vec![33, 4]));
        assert_eq!(user.home.as_deref(), Some("/var/www"));
        let user = find_in("1000:logs", PASSWD, GROUP).expect("any number will do");
        assert_eq!((user.uid, user.gid, user.groups), (1000, 4, vec![4]));
        let user = find_in("33", PASSWD, GROUP).expect("known by number");
        assert_eq!(user.name.as_deref(), Some("www"));
        let none = find_in("nobody-here", PASSWD, GROUP).expect_err("unknown");
        assert_eq!(none.to_string(), "no such user `nobody-here`");
        let none = find_in("www:club", PASSWD, GROUP).expect_err("unknown");
        assert_eq!(none.to_string(), "no such group `club`");
    }
}
