# SPDX-License-Identifier: PostgreSQL
#
# ALTER EXTENSION boocoder UPDATE from every released version: the same objects as in a new database, no row lost, and
# a library that is newer than the objects of a database waits for that.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use BoocoderTest;
use File::Basename;
use File::Copy;
use Test::More;

my @scripts = glob("$FindBin::RealBin/../upgrade/boocoder--*.sql");
chomp(my $share = `pg_config --sharedir`);
for my $script (@scripts)
{
	copy($script, "$share/extension/" . basename($script)) or BAIL_OUT("$script: $!");
}
END { unlink map { "$share/extension/" . basename($_) } @scripts if $share; }

my $node = new_node('upgrade');
my $catalog = slurp("$FindBin::RealBin/../upgrade/catalog.sql");
my $expected = sql($node, $catalog);
my $repo = make_repo('upgrade');

for my $script (@scripts)
{
	my ($version) = basename($script) =~ /^boocoder--(.*)\.sql$/;
	(my $database = "from_$version") =~ tr/./_/;

	sql($node, "CREATE DATABASE $database");
	sql($node, "CREATE EXTENSION boocoder VERSION '$version'", $database);
	ok(until_true(sub { sql($node, 'SELECT last_error FROM boocoder.status', $database) =~ /ALTER EXTENSION boocoder UPDATE/ }),
		"$version: the dispatcher says what it waits for");
	sql($node, "SELECT boocoder.add_project('demo', '$repo')", $database);
	sql($node, "SELECT boocoder.register_provider('shell', 'command', ARRAY['/bin/sh', '-c', 'eval \"\$0\"'])", $database);
	sql($node, "UPDATE boocoder.providers SET enabled = false WHERE name = 'goose'", $database);
	my $task = sql($node, "SELECT boocoder.run('echo kept > kept.txt', 'demo', agent => 'shell')", $database);
	sleep 1;
	is(task_state($node, $task, $database), 'pending', "$version: and waits for it");

	sql($node, 'ALTER EXTENSION boocoder UPDATE', $database);
	my $is = sql($node, $catalog, $database);
	# the rows of providers are this database's own
	my ($new, $updated) = map { join("\n", grep { !/^row .*"builtin"/ } split /\n/, $_) } $expected, $is;
	is($updated, $new, "$version: an update makes what a new database has");
	settles($node, $task, 'completed', "$version: the task that waited is done", 30, $database);
	is(sql($node, "SELECT enabled, builtin, kind, command FROM boocoder.providers WHERE name = 'goose'", $database),
		'f|f|goose|' . ($version eq '0.1.0' ? '{goose,acp}' : '{}'), "$version: what an administrator changed is as it was");
	is(sql($node, "SELECT count(*) FROM boocoder.providers WHERE builtin AND kind = name", $database), 7,
		"$version: built-in agents are known for what they are");
	is(sql($node, 'SELECT coalesce(last_error, \'\') FROM boocoder.status', $database), '', "$version: nothing is wrong any more");
}
$node->stop;
done_testing();
