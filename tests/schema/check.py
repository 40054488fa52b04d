#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Checks JSON that vmdksync printed against the schemas beside this file.

check.py FOLDER      each file NAME.STATUS in it is what one run with that exit status printed;
                     NAME.STATUS.cmd, if there, is its command, for messages
check.py -l FILE...  each line of each file is an object of --progress=json
check.py -p SCHEMA   prints the members that the schema has, at any depth, one a line
Exit status 77: there is no python3-jsonschema.
"""
import json
import os
import sys
import warnings

warnings.simplefilter("ignore")
HERE = os.path.dirname(os.path.abspath(__file__))


def load(name):
    with open(os.path.join(HERE, name), encoding="utf-8") as f:
        return json.load(f)


def no_twins(pairs):
    seen = dict(pairs)
    if len(seen) != len(pairs):
        raise ValueError("a member is there twice")
    return seen


def validators():
    import jsonschema

    def of(name):
        schema = load(name + ".json")
        jsonschema.Draft7Validator.check_schema(schema)
        store = {"file:///common.json": load("common.json")}
        resolver = jsonschema.RefResolver(f"file:///{name}.json", schema, store=store)
        return jsonschema.Draft7Validator(schema, resolver=resolver)

    return {n[:-5]: of(n[:-5]) for n in os.listdir(HERE) if n.endswith(".json")}


def shape(v):
    """What the schema can tell apart in a run of a map, so that one of a kind is enough."""
    return tuple((k, type(x).__name__) for k, x in v.items()) if isinstance(v, dict) else type(v).__name__


def problems(text, status, schemas):
    try:
        v = json.loads(text, object_pairs_hook=no_twins)
    except ValueError as e:
        return [f"is not one JSON value: {e}"]
    if not isinstance(v, dict):
        return ["is no object"]
    error = v.get("error")
    if (error is not None) != (status > 1):
        return [f"error is {error!r}, the exit status {status}"]
    if error is not None and error.get("exit") != status:
        return [f"error.exit is {error.get('exit')}, the exit status {status}"]
    if isinstance(v.get("map"), list):
        v["map"] = list({shape(run): run for run in v["map"]}.values())
    job = "apply" if v.get("job") == "dry-run" else v.get("job")
    name = "error" if error is not None and "map" not in v else job
    if name not in schemas:
        return [f"job is {job!r}"]
    return [f"{'/'.join(map(str, e.path))}: {e.message[:300]}" for e in schemas[name].iter_errors(v)]


def members(schema, common):
    """All names of properties, references followed."""
    if isinstance(schema, list):
        for x in schema:
            yield from members(x, common)
    elif isinstance(schema, dict):
        ref = schema.get("$ref", "")
        if ref:
            yield from members(common[ref.rpartition("/")[2]], common)
        properties = schema.get("properties", {})
        yield from properties
        yield from members(list(properties.values()), common)
        yield from members([schema[k] for k in ("items", "anyOf") if k in schema], common)


def main(args):
    if args[:1] == ["-p"]:
        schema = load(args[1])
        known = {**load("common.json")["definitions"], **schema.get("definitions", {})}
        print("\n".join(sorted(set(members(schema, known)))))
        return 0
    try:
        schemas = validators()
    except ImportError:
        print("needs python3-jsonschema", file=sys.stderr)
        return 77
    bad = 0
    if args[:1] == ["-l"]:
        for path in args[1:]:
            with open(path, encoding="utf-8") as f:
                for line in f:
                    for e in schemas["progress"].iter_errors(json.loads(line, object_pairs_hook=no_twins)):
                        print(f"{path}: {line.strip()}: {e.message[:300]}")
                        bad = 1
        return bad
    for name in sorted(os.listdir(args[0])):
        if name.endswith(".cmd") or not name.rpartition(".")[2].isdigit():
            continue
        path = os.path.join(args[0], name)
        with open(path, "rb") as f:
            text = f.read()
        try:
            wrong = problems(text.decode("utf-8"), int(name.rpartition(".")[2]), schemas)
        except UnicodeDecodeError as e:
            wrong = [str(e)]
        if wrong:
            command = name
            if os.path.exists(path + ".cmd"):
                with open(path + ".cmd", encoding="utf-8", errors="replace") as f:
                    command = f.read().strip()
            print(f"{command}\n  {wrong}\n  {text[:2000]!r}")
            bad = 1
    return bad


sys.exit(main(sys.argv[1:]))
