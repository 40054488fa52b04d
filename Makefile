# SPDX-License-Identifier: MIT
# vmdksync
#
# Variables a packager may set, in the environment or on the command line:
#   PREFIX    where to install (/usr/local)      DESTDIR   staging folder put before PREFIX
#   CC        compiler (cc)                      CPPFLAGS, CFLAGS, LDFLAGS   the usual; come last
#   BUILD     folder of the objects (build/plain), one for each set of flags worth keeping
#   SCRATCH   folder for the files of the tests (build/scratch): a disk with 4 GiB of room, no tmpfs
#   WERROR    not empty: warnings are errors (so too when CI is set)
#   V         not empty: show the commands
#
# make help lists the targets.

PREFIX ?= /usr/local
BUILD ?= build/plain
SCRATCH ?= build/scratch
PKG_CONFIG ?= pkg-config
VERSION := 1.1.0-dev

bindir = $(PREFIX)/bin
mandir = $(PREFIX)/share/man/man1
compdir = $(PREFIX)/share/bash-completion/completions
zshdir = $(PREFIX)/share/zsh/site-functions
fishdir = $(PREFIX)/share/fish/vendor_completions.d
migratedir = $(PREFIX)/share/vmdksync/migrate
Q := $(if $(V),,@)

WARN := -Wall -Wextra -Wshadow -Wvla -Wundef -Wmissing-prototypes -Wstrict-prototypes
WARN += $(if $(WERROR)$(CI),-Werror)

CFLAGS ?= -O2 -g
optimized := $(filter-out -O0,$(filter -O%,$(CFLAGS)))
sanitized := $(findstring -fsanitize,$(CFLAGS))
HARDEN := -fPIE -fstack-protector-strong
HARDEN += $(if $(sanitized),,$(if $(optimized),-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2))

LIBS := $(shell $(PKG_CONFIG) --libs liburing zlib 2>/dev/null || echo -luring -lz)
LIBS_CPP := $(shell $(PKG_CONFIG) --cflags liburing zlib 2>/dev/null)

LIBURING := $(shell $(PKG_CONFIG) --modversion liburing 2>/dev/null)

COMPILE = $(CC) -std=gnu11 $(WARN) $(HARDEN) -pthread -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -Ilib \
	-DVERSION=\"$(VERSION)\" $(if $(LIBURING),-DLIBURING=\"$(LIBURING)\") $(LIBS_CPP) $(CPPFLAGS) $(CFLAGS)
LINK = $(CC) -pie -pthread -Wl,-z,relro,-z,now $(CFLAGS) $(LDFLAGS)

LIB_OBJ := $(patsubst %.c,$(BUILD)/%.o,$(sort $(wildcard lib/*/*.c)))
FUZZ := cowd hosted sesparse streamopt descriptor chain pipe nbd checkpoint
FUZZ_OBJ := $(patsubst %,$(BUILD)/tests/fuzz/%.o,$(FUZZ) fuzz replay)
REPLAY := $(FUZZ:%=$(BUILD)/replay-%)
UNIT_OBJ := $(patsubst %.c,$(BUILD)/%.o,$(sort $(wildcard tests/unit/*.c)))
MKVMDK_OBJ := $(patsubst %.c,$(BUILD)/%.o,$(sort $(wildcard tests/mkvmdk/*.c)))
OBJ := $(LIB_OBJ) $(FUZZ_OBJ) $(UNIT_OBJ) $(MKVMDK_OBJ) $(BUILD)/vmdksync.o $(BUILD)/tests/drill.o \
	$(BUILD)/tests/bench/limit.o

# Only the plain flavour is the one at hand in the top folder.
all: $(BUILD)/vmdksync $(if $(filter build/plain,$(BUILD)),vmdksync)

everything: all $(BUILD)/unit $(BUILD)/mkvmdk $(BUILD)/drill $(BUILD)/limit $(BUILD)/nomem.so $(REPLAY)

vmdksync: $(BUILD)/vmdksync
	$(Q)ln -sf $< $@

$(BUILD)/vmdksync: $(BUILD)/vmdksync.o $(LIB_OBJ)
$(BUILD)/unit: $(UNIT_OBJ) $(LIB_OBJ)
$(BUILD)/mkvmdk: $(MKVMDK_OBJ)
$(BUILD)/drill: $(BUILD)/tests/drill.o
$(BUILD)/limit: $(BUILD)/tests/bench/limit.o
$(BUILD)/replay-%: $(BUILD)/tests/fuzz/%.o $(BUILD)/tests/fuzz/fuzz.o $(BUILD)/tests/fuzz/replay.o $(LIB_OBJ)
	@echo '  LD   $@'
	$(Q)$(LINK) -o $@ $^ $(LIBS)
$(BUILD)/fuzz-%: $(BUILD)/tests/fuzz/%.o $(BUILD)/tests/fuzz/fuzz.o $(LIB_OBJ)
	@echo '  LD   $@'
	$(Q)$(LINK) -fsanitize=fuzzer -o $@ $^ $(LIBS)
$(BUILD)/vmdksync $(BUILD)/unit $(BUILD)/mkvmdk $(BUILD)/drill $(BUILD)/limit:
	@echo '  LD   $@'
	$(Q)$(LINK) -o $@ $^ $(LIBS)

# Preloaded by tests/memory.bats; not where a sanitizer has its own malloc.
$(BUILD)/nomem.so: tests/nomem.c $(BUILD)/flags
	@echo '  CC   $@'
	$(Q)$(CC) -std=gnu11 $(WARN) -O2 -fPIC -shared -o $@ $<

$(BUILD)/%.o: %.c $(BUILD)/flags
	@mkdir -p $(@D)
	@echo '  CC   $@'
	$(Q)$(COMPILE) -MMD -MP -c -o $@ $<

# Rewritten, and everything rebuilt, only when the commands above change.
$(BUILD)/flags: FORCE
	@mkdir -p $(@D)
	@printf '%s\n' '$(subst ','\'',$(COMPILE) $(LINK) $(LIBS))' >$@.new
	@if cmp -s $@.new $@; then rm $@.new; else mv $@.new $@; fi

-include $(OBJ:.o=.d)

# --- tests ---------------------------------------------------------------------------------------

TESTS ?= $(wildcard tests/*.bats)
# More than there are processors, as half of the time a test waits for a disk; four of the largest are
# just below 4 GiB. Where SCRATCH has more room JOBS may be more.
JOBS ?= $(shell n=$$(nproc); echo $$((n < 2 ? 2 : 4)))
gnu_parallel = $(shell parallel --version 2>/dev/null | grep -q '^GNU parallel' && echo yes)

# Compiles with all processors, unless -j was given.
check:
	+@$(MAKE) --no-print-directory $(if $(findstring -j,$(MAKEFLAGS)),,-j$$(nproc)) everything
	@mkdir -p '$(SCRATCH)'
	TMPDIR='$(abspath $(SCRATCH))' \
	VMDKSYNC='$(abspath $(BUILD))/vmdksync' MKVMDK='$(abspath $(BUILD))/mkvmdk' \
	UNIT='$(abspath $(BUILD))/unit' REPLAY='$(abspath $(BUILD))/replay' LIMIT='$(abspath $(BUILD))/limit' \
	NOMEM_SO='$(abspath $(BUILD))/nomem.so' FLAVOUR='$(notdir $(BUILD))' \
	bats --formatter tap --print-output-on-failure $(if $(KEEP),--no-tempdir-cleanup) \
		$(if $(TAGS),--filter-tags '$(TAGS)') $(if $(gnu_parallel),--jobs $(JOBS)) $(TESTS)

# What a change usually breaks, see the tags of files and tests; a little of what takes its time.
quick:
	+@RANDOM_TIME=$${RANDOM_TIME:-10} KILLS=$${KILLS:-4} $(MAKE) TAGS='quick,!slow' check

# A sanitizer that speaks ends the program with 99, which no test takes for an answer of ours. The
# rules of the tree do not depend on the flavour.
SAN_asan := -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all
SAN_ubsan := -O1 -g -fsanitize=undefined -fno-sanitize-recover=all
asan ubsan:
	ASAN_OPTIONS=detect_leaks=1:exitcode=99 LSAN_OPTIONS=exitcode=99 \
	UBSAN_OPTIONS=print_stacktrace=1:exitcode=99 \
	$(MAKE) BUILD=build/$@ CFLAGS='$(SAN_$@)' \
		TESTS='$(filter-out tests/rules.bats tests/package.bats,$(TESTS))' check

# FUZZ_TIME: seconds, shared by the targets in FUZZ. What is found lies in build/fuzz/found, the
# corpus, which is kept, in build/fuzz/corpus.
FUZZ_TIME ?= 60
FUZZ_CFLAGS := -O1 -g -fno-omit-frame-pointer -fsanitize=fuzzer-no-link,address,undefined \
	-fno-sanitize-recover=all '-DCLAIM_SECTORS=(UINT64_C(1)<<12)'
fuzz: $(BUILD)/mkvmdk
	$(MAKE) BUILD=build/fuzz CC=clang CFLAGS="$(FUZZ_CFLAGS)" $(FUZZ:%=build/fuzz/fuzz-%)
	@mkdir -p build/fuzz/found
	sh tests/fuzz/corpus.sh '$(abspath $(BUILD))/mkvmdk' build/fuzz/seeds
	@set -e; for t in $(FUZZ); do \
		mkdir -p build/fuzz/corpus/$$t; \
		build/fuzz/fuzz-$$t -max_total_time=$$(($(FUZZ_TIME) / $(words $(FUZZ)))) \
			-timeout=20 -rss_limit_mb=2000 -malloc_limit_mb=500 -max_len=300000 -verbosity=0 \
			-print_final_stats=1 -artifact_prefix=build/fuzz/found/$$t- \
			build/fuzz/corpus/$$t build/fuzz/seeds/$$t $$(ls -d tests/fuzz/regress/$$t 2>/dev/null); \
	done

bench: everything
	BENCH_SIZE='$(BENCH_SIZE)' VMDKSYNC='$(abspath $(BUILD))/vmdksync' \
	MKVMDK='$(abspath $(BUILD))/mkvmdk' LIMIT='$(abspath $(BUILD))/limit' tests/bench/run.sh

# The downtime of a migration, at a cable of 1 Gbit/s; needs root.
bench-downtime: everything
	VMDKSYNC='$(abspath $(BUILD))/vmdksync' MKVMDK='$(abspath $(BUILD))/mkvmdk' tests/bench/downtime.sh

lint: lint-shell
	$(MAKE) BUILD=build/gcc CC=gcc WERROR=1 everything
	$(MAKE) BUILD=build/clang CC=clang WERROR=1 everything

# Off, and why. gcc: what container_of() leads back to, or an array holds, passes for lost. clang-tidy:
# style, pointers in arrays, bytes that are no text; and its path analysis, which does not know that
# what other files return is never positive (gcc's does as well, and finds its way).
TIDY := -*,bugprone-*,performance-*,portability-*,clang-analyzer-unix.*,clang-analyzer-deadcode.*
TIDY := $(TIDY),-bugprone-easily-swappable-parameters,-bugprone-narrowing-conversions
TIDY := $(TIDY),-bugprone-reserved-identifier,-bugprone-implicit-widening-of-multiplication-result
TIDY := $(TIDY),-bugprone-branch-clone,-bugprone-macro-parentheses,-bugprone-sizeof-expression
TIDY := $(TIDY),-performance-no-int-to-ptr,-bugprone-suspicious-string-compare,-bugprone-not-null-terminated-result
analyze:
	$(MAKE) BUILD=build/analyze CC=gcc CFLAGS='-O1 -fanalyzer -Wno-analyzer-malloc-leak' WERROR=1 \
		build/analyze/vmdksync
	cppcheck --enable=warning,performance,portability --inline-suppr --std=c11 -D_GNU_SOURCE -Ilib \
		--quiet --error-exitcode=1 lib vmdksync.c
	clang-tidy --quiet --checks='$(TIDY)' --warnings-as-errors='*' $(wildcard lib/*/*.c) vmdksync.c -- \
		-std=gnu11 -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -Ilib

# Lines of lib/ that the tests reach, by gcov; the least is COVERAGE percent, and each line that is not
# reached has a reason (tests/coverage.sh).
COVERAGE ?= 90
coverage:
	@rm -rf build/coverage/counts
	code=0; $(MAKE) BUILD=build/coverage CC=gcc CFLAGS='-O0 -g --coverage -fprofile-update=atomic' \
		TESTS='$(filter-out tests/rules.bats tests/package.bats,$(TESTS))' check || code=$$?; \
	sh tests/coverage.sh build/coverage $(COVERAGE) && exit $$code

SCRIPTS = $(shell find . -name .git -prune -o -path ./build -prune -o -name '*.sh' -print) .ci/run \
	examples/migrate/vmdksync-migrate
# SC2154, SC2030, SC2031, SC2317: bats sets variables and calls functions behind shellcheck's back.
lint-shell:
	shellcheck -x $(SCRIPTS)
	shellcheck -s bash -e SC2154,SC2317 $(wildcard tests/*.bash examples/*.bash)
	shellcheck -s bats -e SC2154,SC2030,SC2031,SC2317 $(wildcard tests/*.bats)

# --- the rest ------------------------------------------------------------------------------------

MIGRATE := esxi.sh world.sh steps.sh README
installed = $(bindir)/vmdksync $(bindir)/vmdksync-migrate $(mandir)/vmdksync.1 $(mandir)/vmdksync-migrate.1 \
	$(compdir)/vmdksync $(zshdir)/_vmdksync $(fishdir)/vmdksync.fish $(MIGRATE:%=$(migratedir)/%) $(migratedir)/probe.sh

install: $(BUILD)/vmdksync
	install -d $(foreach d,$(bindir) $(mandir) $(compdir) $(zshdir) $(fishdir) $(migratedir),'$(DESTDIR)$(d)')
	install -m 0755 $(BUILD)/vmdksync '$(DESTDIR)$(bindir)/vmdksync'
	install -m 0644 vmdksync.1 vmdksync-migrate.1 '$(DESTDIR)$(mandir)'
	install -m 0644 examples/completion.bash '$(DESTDIR)$(compdir)/vmdksync'
	install -m 0644 examples/completion.zsh '$(DESTDIR)$(zshdir)/_vmdksync'
	install -m 0644 examples/completion.fish '$(DESTDIR)$(fishdir)/vmdksync.fish'
	install -m 0755 examples/migrate/vmdksync-migrate '$(DESTDIR)$(bindir)/vmdksync-migrate'
	install -m 0644 $(MIGRATE:%=examples/migrate/%) '$(DESTDIR)$(migratedir)'
	install -m 0755 examples/migrate/probe.sh '$(DESTDIR)$(migratedir)'

uninstall:
	rm -f $(foreach f,$(installed),'$(DESTDIR)$(f)')

# What is committed, and nothing else; times, owners and order are the commit's, not the machine's.
name = vmdksync-$(VERSION)
dist:
	@mkdir -p build
	git -c tar.umask=0022 archive --format=tar --prefix=$(name)/ HEAD | gzip -9n >build/$(name).tar.gz
	@echo build/$(name).tar.gz

deb:
	MAKE='$(MAKE)' sh .ci/deb.sh $(VERSION) build/deb

# Needs liburing.a and libz.a; Debian's -dev packages have both.
static:
	$(MAKE) BUILD=build/static LDFLAGS='-static-pie $(LDFLAGS)' \
		LIBS='$(shell $(PKG_CONFIG) --static --libs liburing zlib 2>/dev/null || echo -luring -lz)' \
		build/static/vmdksync

# A program of 32 bits and its unit tests. Where no foreign architecture is set up, M32 may hold what
# `dpkg -x` makes of Debian's i386 packages of liburing-dev and zlib1g-dev.
M32 ?=
m32:
	$(MAKE) BUILD=build/m32 CFLAGS='-O2 -g -m32' WERROR=1 PKG_CONFIG=false \
		CPPFLAGS='$(if $(M32),-I$(M32)/usr/include -I$(M32)/usr/include/i386-linux-gnu)' \
		LIBS='$(if $(M32),-L$(M32)/usr/lib/i386-linux-gnu) -l:liburing.a -l:libz.a' \
		build/m32/vmdksync build/m32/mkvmdk build/m32/unit
	build/m32/unit

# Big-endian (s390x) and 32 bits (armhf), under qemu-user: unit tests, and deltas of every format applied
# and compared with what this machine makes. Nightly; `sh tests/setup.sh cross` installs what it needs.
# Libraries come from Debian, into build/cross; nothing foreign is installed.
CROSS := s390x armhf
cross: $(CROSS:%=cross-%)
cross-%: $(BUILD)/vmdksync $(BUILD)/mkvmdk
	MAKE='$(MAKE)' sh tests/cross.sh $* build/cross

deps:
	sh tests/setup.sh test

demo:
	sh examples/demo.sh

clean:
	rm -rf build vmdksync

help:
	@echo 'all        the program (default)'
	@echo 'check      build and run all tests; TESTS=tests/NAME.bats for some; JOBS=N at a'
	@echo '           time (4); KEEP=1: keep their files'
	@echo 'quick      the tests of which one usually fails when something is wrong (a minute)'
	@echo 'asan       all with AddressSanitizer and UBSan'
	@echo 'ubsan      the same with UBSan alone'
	@echo 'lint       shellcheck; gcc and clang with -Werror'
	@echo 'fuzz       FUZZ_TIME seconds of libFuzzer (clang) over all formats'
	@echo 'bench      measure against the limit of the machine and against peers (minutes);'
	@echo '           BENCH_SIZE=MiB of grains, or tiny; see tests/bench/run.sh'
	@echo 'bench-downtime  from power-off to a verified disk, over 1 Gbit/s; DOWNTIME_SIZE=MiB'
	@echo 'analyze    gcc -fanalyzer, cppcheck, clang-tidy'
	@echo 'coverage   the tests again; which lines of lib/ they reach (minutes)'
	@echo 'demo       run examples/demo.sh'
	@echo 'deps       install what building and testing need (Debian)'
	@echo 'install    into $$(DESTDIR)$$(PREFIX); uninstall takes it away again'
	@echo 'dist       build/vmdksync-VERSION.tar.gz, of the last commit; always the same bytes'
	@echo 'static     build/static/vmdksync, which needs no library'
	@echo 'm32        build for 32 bits (gcc-multilib), and run the unit tests; M32=folder of libraries'
	@echo 'cross      the same for s390x (big-endian) and armhf, under qemu-user, with whole deltas'
	@echo 'deb        a Debian package in build/deb'
	@echo 'clean      remove what was built'

.SECONDARY: $(FUZZ_OBJ)
FORCE:
.PHONY: all everything fuzz bench bench-downtime analyze coverage check quick asan ubsan lint lint-shell \
	install uninstall dist deb static m32 cross deps \
	demo clean help FORCE
