#!/bin/sh
# SPDX-License-Identifier: MIT
exec sh "${0%/*}/migrate/vmdksync-migrate" run "$@"
