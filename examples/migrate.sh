#!/bin/sh
exec sh "${0%/*}/migrate/vmdksync-migrate" run "$@"
