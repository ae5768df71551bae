# boocoder: PGXS build of the extension, plus the runner and the tests.
#
#   make, make install, make uninstall
#   make check-unit      tests of the pure C code (cmocka)
#   make installcheck    tests of the SQL surface (pg_regress, on a running server)
#   make check-tap       tests with private clusters (prove; not as root)
#   make check-fuzz      replays the fuzzing corpora

EXTENSION = boocoder
EXTVERSION := $(shell sed -n "s/^default_version *= *'\(.*\)'/\1/p" boocoder.control)

MODULE_big = boocoder
OBJS = $(patsubst %.c,%.o,$(wildcard src/extension/*.c)) src/common/frame.o
PG_CPPFLAGS = -I$(srcdir)/src -D_GNU_SOURCE -DBC_VERSION='"$(EXTVERSION)"'
PG_CFLAGS = -std=gnu11 -Wall -Wextra -Werror -Wno-unused-parameter -Wno-sign-compare \
	-Wno-missing-field-initializers -Wno-declaration-after-statement -MMD -MP

SQL_CHUNKS = $(sort $(wildcard sql/[0-9]*.sql))
DATA_built = sql/boocoder--$(EXTVERSION).sql
DATA = $(filter-out $(DATA_built),$(wildcard sql/boocoder--*--*.sql))
DOCS = $(wildcard doc/*.md)

REGRESS = $(patsubst test/sql/%.sql,%,$(sort $(wildcard test/sql/*.sql)))
REGRESS_OPTS = --inputdir=test --encoding=UTF8
PROVE_TESTS = test/t/*.pl

RUNNER = src/runner/boocoder-runner
EXTRA_CLEAN = $(RUNNER) src/*/*.d src/*/*.bc test/unit/build test/fuzz/build

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

# The runner: plain C, no header of the server in reach.
RUNNER_PACKAGES = libgit2 jansson libcurl
RUNNER_CFLAGS = -std=c11 -O2 -g -D_GNU_SOURCE -Isrc -Wall -Wextra -Werror -Wno-missing-field-initializers \
	-MMD -MP \
	-fstack-protector-strong -D_FORTIFY_SOURCE=2 $(shell pkg-config --cflags $(RUNNER_PACKAGES))
# Symbols are bound while a spare runner starts, not while a task waits for it.
RUNNER_LIBS = -Wl,--as-needed -Wl,-z,relro,-z,now $(shell pkg-config --libs $(RUNNER_PACKAGES))
RUNNER_OBJS = $(patsubst src/%.c,src/runner/build/%.o,$(wildcard src/runner/*.c src/common/*.c))
EXTRA_CLEAN += src/runner/build

all: $(RUNNER)

src/runner/build/%.o: src/%.c
	@mkdir -p $(@D)
	$(CC) $(RUNNER_CFLAGS) -DBC_VERSION='"$(EXTVERSION)"' -c -o $@ $<

$(RUNNER): $(RUNNER_OBJS)
	$(CC) -o $@ $^ $(RUNNER_LIBS)

install: install-runner
install-runner: $(RUNNER)
	$(MKDIR_P) '$(DESTDIR)$(pkglibdir)'
	$(INSTALL_PROGRAM) $(RUNNER) '$(DESTDIR)$(pkglibdir)/'

uninstall: uninstall-runner
uninstall-runner:
	rm -f '$(DESTDIR)$(pkglibdir)/boocoder-runner'

# the version is compiled in
$(OBJS) $(RUNNER_OBJS): boocoder.control

sql/boocoder--$(EXTVERSION).sql: $(SQL_CHUNKS) boocoder.control
	cat $(SQL_CHUNKS) > $@

check-unit:
	$(MAKE) -f test/unit/Makefile check
check-fuzz:
	$(MAKE) -f test/fuzz/Makefile check
check-tap:
	$(PROVE) -I test/t/lib -I $(top_srcdir)/src/test/perl/ $(PROVE_FLAGS) $(PROVE_TESTS)

.PHONY: install-runner uninstall-runner check-unit check-fuzz check-tap

-include $(OBJS:.o=.d) $(RUNNER_OBJS:.o=.d)
