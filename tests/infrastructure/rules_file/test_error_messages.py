"""Malformed rules files: each is refused whole, with one message that names file, line and field."""

import os
from pathlib import Path

import pytest

from sluicegate import InvalidInputError
from sluicegate.domain.errors import RuleFileError
from sluicegate.infrastructure.rules_file.reader import MAX_FILE_BYTES, load_rules, parse_rules, read_rule_file

BAD_TOML = {
    "empty": ("", "f: holds nothing; expected at least one table, such as endpoints"),
    "only a comment": ("# nothing\n", "f: holds nothing; expected at least one table, such as endpoints"),
    "not TOML": ("[policies]\nlogin 5/minute\n", "f:2: not TOML: Expected '=' after a key in a key/value pair"),
    "cut off in a string": ('[policies]\nlogin = "5/min', "f:2: not TOML: Unterminated string"),
    "cut off in a list": ('[endpoints]\n"POST /x" = ["5/minute",', "f:2: not TOML: Invalid value"),
    "a table twice": ("[policies]\n[endpoints]\n[policies]\n", "f:3: not TOML: Cannot declare ('policies',) twice"),
    "a policy twice": ('[policies]\na = "5/minute"\na = "6/minute"\n', "f:3: not TOML: Cannot overwrite a value"),
    "thousands of digits": (
        f"[policies.a]\nmax_tokens = {'9' * 5000}\nrefill_rate = 1\n",
        "f: not TOML: a number of thousands of digits",
    ),
    "nested too deeply": ("a = " + "[" * 5000 + "]" * 5000, "f: nested too deeply"),
    "unknown table": ("[policy]\n", "f:1: policy: unknown field; did you mean policies?"),
    "unknown field": (
        '[policies.login]\nrate = "5/minute"\n\nscop = "ip"\n',
        "f:4: policies.login.scop: unknown field; did you mean scope?",
    ),
    "unknown field of a rule in a list": (
        '[endpoints]\n"POST /x" = [\n  "5/minute",\n  { rate = "1/day", burst = 3 },\n]\n',
        'f:4: endpoints."POST /x"[1].burst: unknown field',
    ),
    "a rate that is a number": (
        "[policies]\na = '5/minute'\nb = 5\n",
        "f:3: policies.b: expected text or a table, not a whole number",
    ),
    "a cost that is a text": (
        '[policies.a]\nrate = "5/minute"\ncost = "2"\n',
        "f:3: policies.a.cost: expected a whole number, not text",
    ),
    "an enabled that is a number": (
        '[policies.a]\nrate = "5/minute"\nenabled = 1\n',
        "f:3: policies.a.enabled: expected true or false, not a whole number",
    ),
    "not a number": (
        "[policies.a]\nmax_tokens = 5\nrefill_rate = nan\n",
        "f:3: policies.a.refill_rate: refill_rate=nan: expected a finite number of tokens per minute above 0",
    ),
    "infinite": (
        "[policies.a]\nmax_tokens = 5\nrefill_rate = inf\n",
        "f:3: policies.a.refill_rate: refill_rate=inf: expected a finite number of tokens per minute above 0",
    ),
    "no capacity": (
        "[policies.a]\nmax_tokens = 0\nrefill_rate = 5\n",
        "f:2: policies.a.max_tokens: max_tokens=0: expected 1 to 1000000000000",
    ),
    "half of the numbers": (
        "[policies.a]\nmax_tokens = 5\n",
        "f:1: policies.a: expected a rate, both max_tokens and refill_rate, or in_flight",
    ),
    "a rate and the numbers": (
        '[policies.a]\nmax_tokens = 5\nrate = "5/minute"\n',
        "f:3: policies.a.rate: cannot be used with max_tokens or refill_rate; write one or the other",
    ),
    "no rate": (
        '[policies]\na = "5 a minute"\n',
        (
            "f:2: policies.a: rate='5 a minute': expected a rate such as '100/minute', '5 per 10 seconds'"
            " or '5/minute burst 20 per ip'"
        ),
    ),
    "two scopes": (
        '[policies.a]\nrate = "5/minute per user"\nscope = "ip"\n',
        "f:2: policies.a.rate: names the scope 'user', but the scope 'ip' was given",
    ),
    "a wrong scope": (
        '[policies.a]\nrate = "5/minute"\nscope = "IP address"\n',
        (
            "f:2: policies.a.rate: scope='IP address': unknown scope; expected one of ip, user, user_provider, global,"
            " or a name of your own made of a-z, 0-9 and _"
        ),
    ),
    "a cost above the capacity": (
        '[policies.a]\nrate = "5/minute"\ncost = 6\n',
        "f:3: policies.a.cost: cost=6: expected 1 to max_tokens=5",
    ),
    "a wrong failure policy": (
        '[policies.a]\nrate = "5/minute"\non_storage_error = "open"\n',
        "f:3: policies.a.on_storage_error: 'open': expected one of allow, local, deny",
    ),
    "a lease above the capacity": (
        '[policies.a]\nrate = "5/minute"\nlease = 9\n',
        "f:3: policies.a.lease: lease=9: expected 1 to max_tokens=5",
    ),
    "a policy named like a rate": (
        '[policies]\n"5/minute" = "6/minute"\n',
        'f:2: policies."5/minute": a policy\'s name must not read as a rate',
    ),
    "a policy with a wrong name": (
        '[policies]\n"a b" = "6/minute"\n',
        "f:2: policies.\"a b\": name='a b': expected up to 64 letters, digits or any of _.*/-",
    ),
    "a policy that is not there": (
        '[policies]\nauth_login = "5/minute"\n[endpoints]\n"POST /x" = ["auth_logn"]\n',
        "f:4: endpoints.\"POST /x\"[0]: no policy is named 'auth_logn' (did you mean 'auth_login'?), and it is no rate",
    ),
    "a policy twice on an endpoint": (
        '[policies]\na = "5/minute"\n[endpoints]\n"POST /x" = ["a", "a"]\n',
        "f:4: endpoints.\"POST /x\"[1]: the policy 'a' is listed twice",
    ),
    "no rules": ('[endpoints]\n"POST /x" = []\n', 'f:2: endpoints."POST /x": expected at least one rule'),
    "a method in small letters": (
        '[endpoints]\n"post /x" = "5/minute"\n',
        "f:2: endpoints.\"post /x\": endpoint='post /x': expected a method in capitals, such as POST, or *",
    ),
    "a template with an open brace": (
        '[endpoints]\n"GET /x/{id" = "5/minute"\n',
        (
            "f:2: endpoints.\"GET /x/{id\": endpoint='GET /x/{id': braces that hold no parameter in '/x/{id',"
            " expected {name} or {name:converter}"
        ),
    ),
    "a rate beside rules": (
        '[endpoints]\n"POST /x" = { rules = "5/minute", scope = "user" }\n',
        'f:2: endpoints."POST /x".scope: cannot be used with rules; write it in the rule itself',
    ),
    "an endpoint's cost above the capacity": (
        '[endpoints."POST /x"]\nrules = "5/minute"\ncost = 7\n',
        'f:3: endpoints."POST /x".cost: cost=7: expected 1 to max_tokens=5',
    ),
    "a group without endpoints": (
        '[groups.g]\nrules = "5/minute"\nendpoints = []\n',
        "f:3: groups.g.endpoints: expected at least one entry",
    ),
    "a group without rules": ('[groups.g]\nendpoints = ["GET /"]\n', "f:1: groups.g: the field rules is missing"),
    "a group with the name of an endpoint": (
        '[endpoints]\nsend = "5/minute"\n[groups.send]\nrules = "9/minute"\nendpoints = ["mail"]\n',
        "f: groups: 'send' names an endpoint as well, and their buckets would be the same",
    ),
    "an endpoint twice in a group": (
        '[groups.g]\nrules = "9/minute"\nendpoints = ["mail", "mail"]\n',
        "f:3: groups.g.endpoints[1]: 'mail' is listed twice",
    ),
    "no address": (
        '[deny]\nip = [\n  "192.0.2.1",\n  "192.0.2.300",\n]\n',
        "f:4: deny.ip[1]: '192.0.2.300': expected an address or a network such as '192.0.2.0/24'",
    ),
    "a network with bits outside its prefix": (
        '[allow]\nip = ["10.0.0.1/8"]\n',
        "f:2: allow.ip[0]: '10.0.0.1/8': has bits set outside its prefix; did you mean '10.0.0.0/8'?",
    ),
    "an address twice": (
        '[deny]\nip = ["2001:db8::1", "2001:DB8:0::1"]\n',
        "f:2: deny.ip[1]: '2001:DB8:0::1' is already in deny.ip[0]",
    ),
    "an address allowed and denied": (
        '[allow]\nip = ["10.0.0.0/8"]\n[deny]\nip = ["10.0.0.0/8"]\n',
        "f:4: deny.ip[0]: '10.0.0.0/8' is already in allow.ip[0]",
    ),
    "a list of everybody": (
        '[allow]\nglobal = ["x"]\n',
        "f:2: allow.global: the scope global has no identifiers to list",
    ),
    "an end without a zone": (
        '[deny]\nip = [{ id = "10.0.0.1", until = 2027-01-01T00:00:00 }]\n',
        "f:2: deny.ip[0].until: expected a date and time with a zone, such as 2027-01-31T12:00:00Z",
    ),
    "an end that is a day": (
        '[deny]\nip = [{ id = "10.0.0.1", until = 2027-01-01 }]\n',
        "f:2: deny.ip[0].until: expected a date and time, not a date without a time",
    ),
    "an override of everybody": (
        '[policies.a]\nrate = "5/minute per global"\noverrides = [{ id = "x", rate = "9/minute" }]\n',
        "f:3: policies.a.overrides: the scope global has no identifiers to override",
    ),
    "an override of another scope": (
        '[policies.a]\nrate = "5/minute per ip"\n[[policies.a.overrides]]\nid = "10.0.0.1"\nrate = "9/minute per user"\n',
        "f:5: policies.a.overrides[0].rate: names the scope 'user', but the scope 'ip' was given",
    ),
    "an override twice": (
        (
            '[policies.a]\nrate = "5/minute per user"\n'
            '[[policies.a.overrides]]\nid = "bob"\nrate = "9/minute"\n[[policies.a.overrides]]\nid = "bob"\nrate = "8/minute"\n'
        ),
        "f:7: policies.a.overrides[1].id: 'bob' is already in policies.a.overrides[0].id",
    ),
    "an override below the cost": (
        '[policies.a]\nrate = "9/minute"\ncost = 3\n[[policies.a.overrides]]\nid = "10.0.0.1"\nrate = "2/minute"\n',
        "f:4: policies.a.overrides[0]: cost=3: expected 1 to max_tokens=2",
    ),
    "a kill switch for nothing": (
        '[kill_switch]\npolicies = ["x"]\n',
        "f:2: kill_switch.policies[0]: no policy is named 'x'",
    ),
    "escape sequences": (
        '[endpoints]\n"a\\u001b[31m" = "nonsense"\n',
        "f:2: endpoints.\"a\\u001b[31m\": no policy is named 'nonsense', and it is no rate",
    ),
}

BAD_YAML = {
    "empty": ("", "f: holds nothing; expected at least one table, such as endpoints"),
    "a list": ("- a\n- b\n", "f: expected a table, not a list"),
    "not YAML": ("policies: [a\n", "f:2: not YAML: did not find expected ',' or ']'"),
    "a tag": ("policies:\n  a: !!python/object/apply:os.system [true]\n", None),
    "an anchor": ("policies:\n  a: &x 5/minute\n", "f:2: the anchor 'x'; anchors and aliases are not allowed"),
    "an alias bomb": (
        "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n",
        "f:1: the anchor 'a'; anchors and aliases are not allowed",
    ),
    "a key twice": ("policies:\n  a: 5/minute\n  a: 6/minute\n", "f:3: the key 'a' occurs twice"),
    "a key that is a list": ("policies:\n  ? [a]\n  : 5/minute\n", "f:2: a key that is not text"),
    "two documents": (
        "policies: {a: 5/minute}\n---\npolicies: {}\n",
        "f:2: a second document begins here; expected one",
    ),
    "nested too deeply": ("a: " + "[" * 40 + "]" * 40, "f:1: nested more than 16 deep"),
    "nothing where a value belongs": (
        "policies:\n  a:\n    rate: 5/minute\n    cost:\n",
        "f:4: policies.a.cost: expected a whole number, not nothing",
    ),
    "no that is not false": (
        "policies:\n  a:\n    rate: 5/minute\n    enabled: no\n",
        "f:4: policies.a.enabled: expected true or false, not text",
    ),
    "not a number": (
        "policies:\n  a:\n    max_tokens: 5\n    refill_rate: .nan\n",
        "f:4: policies.a.refill_rate: refill_rate=nan: expected a finite number of tokens per minute above 0",
    ),
    "a tab": ("policies:\n\ta: 5/minute\n", "f:2: not YAML: found character that cannot start any token"),
    "unknown field in a list": (
        "endpoints:\n  POST /x:\n    - 5/minute\n    - rate: 1/day\n      scoped: ip\n",
        'f:5: endpoints."POST /x"[1].scoped: unknown field; did you mean scope?',
    ),
}
BAD_YAML["a tag"] = (
    BAD_YAML["a tag"][0],
    "f:2: the tag 'tag:yaml.org,2002:python/object/apply:os.system'; tags are not allowed",
)


@pytest.mark.parametrize("case", BAD_TOML)
def test_a_malformed_toml_file_is_refused_with_its_message(case: str) -> None:
    """The message is exactly this, and is one line."""
    text, message = BAD_TOML[case]
    with pytest.raises(RuleFileError) as refused:
        parse_rules(text, name="f")
    assert str(refused.value) == message
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("case", BAD_YAML)
def test_a_malformed_yaml_file_is_refused_with_its_message(case: str) -> None:
    """The message is exactly this, and is one line."""
    text, message = BAD_YAML[case]
    with pytest.raises(RuleFileError) as refused:
        parse_rules(text, name="f", yaml=True)
    assert str(refused.value) == message


def test_a_refused_file_says_where_it_is_wrong_to_programs_as_well() -> None:
    """The error has path, line, field and message."""
    with pytest.raises(InvalidInputError) as refused:
        parse_rules('[policies]\na = "5/minute"\nb = 5\n', name="f")
    error = refused.value
    assert isinstance(error, RuleFileError)
    assert (error.path, error.line, error.field) == ("f", 3, "policies.b")


class TestTheFileItself:
    """What is wrong with a file before anybody reads what it says."""

    def refused(self, path: Path) -> str:
        """Return the message without the folder."""
        with pytest.raises(RuleFileError) as refused:
            load_rules(path)
        return str(refused.value).replace(str(path), "f")

    def test_not_there(self, tmp_path: Path) -> None:
        """A file that does not exist is named."""
        assert self.refused(tmp_path / "no.toml") == "f: cannot be read: No such file or directory"

    def test_a_folder(self, tmp_path: Path) -> None:
        """A folder is no file."""
        assert self.refused(tmp_path) in {"f: not a regular file", "f: cannot be read: Is a directory"}

    def test_a_pipe(self, tmp_path: Path) -> None:
        """A named pipe is refused at once: reading it would wait for ever."""
        os.mkfifo(tmp_path / "pipe.toml")
        assert self.refused(tmp_path / "pipe.toml") == "f: not a regular file"

    def test_a_nul_in_the_name(self) -> None:
        """A name that no file can have is refused like any other."""
        with pytest.raises(RuleFileError, match="cannot be read: no file has such a name"):
            load_rules("a\0b.toml")

    def test_too_long(self, tmp_path: Path) -> None:
        """A file above the bound is not read to its end."""
        path = tmp_path / "long.toml"
        path.write_bytes(b"#" * (MAX_FILE_BYTES + 1))
        assert self.refused(path) == f"f: longer than {MAX_FILE_BYTES} bytes"

    def test_not_utf8(self, tmp_path: Path) -> None:
        """The line of the first wrong byte is named."""
        path = tmp_path / "latin.toml"
        path.write_bytes(b"[policies]\n# caf\xe9\n")
        assert self.refused(path) == "f:2: not UTF-8"

    def test_anybody_may_write_to_it(self, tmp_path: Path) -> None:
        """A file that every user of the machine may change is refused."""
        path = tmp_path / "open.toml"
        path.write_text('[endpoints]\n"GET /" = "5/minute"\n')
        path.chmod(0o646)
        assert self.refused(path) == "f: anybody may write to it (mode 0646); remove that permission: chmod o-w"

    def test_its_group_may_write_to_it(self, tmp_path: Path) -> None:
        """A file that a group may change is read, and a warning says so."""
        path = tmp_path / "group.toml"
        path.write_text('[endpoints]\n"GET /" = "5/minute"\n')
        path.chmod(0o664)
        assert read_rule_file(path).warnings == (f"{path}: its group may write to it (mode 0664)",)
        path.chmod(0o644)
        assert read_rule_file(path).warnings == ()

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
    def test_not_readable(self, tmp_path: Path) -> None:
        """A file without the right to read is named."""
        path = tmp_path / "closed.toml"
        path.write_text("")
        path.chmod(0)
        assert self.refused(path) == "f: cannot be read: Permission denied"
