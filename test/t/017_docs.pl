# SPDX-License-Identifier: PostgreSQL
#
# The documents say what is there: every function, view and table in doc/sql.md, as its comment has it; every setting in
# doc/configuration.md with its default; every reason of a failure that the sources have.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use BoocoderTest;
use IPC::Run ();
use Test::More;

my $doc = "$FindBin::RealBin/../../doc";
plan skip_all => 'the documents are not here' unless -e "$doc/sql.md";
my $node = new_node('docs', conf => "boocoder.max_running = 0");

my $text = slurp("$doc/sql.md");
for my $part (qw(functions tables))
{
	my ($out, $err);
	IPC::Run::run([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-v', "part=$part", '-f', "$doc/sql.gen.sql" ], '>', \$out, '2>', \$err)
	  or BAIL_OUT("psql: $err");
	$out =~ s/\n+\z/\n/;
	if ($ENV{BOOCODER_WRITE_DOCS})
	{
		$text =~ s/(<!-- generated: $part -->\n).*?(<!-- end -->)/$1$out$2/s or BAIL_OUT("no place for $part in sql.md");
		spew("$doc/sql.md", $text);
	}
	my ($is) = $text =~ /<!-- generated: $part -->\n(.*?)<!-- end -->/s;
	is($is, $out, "the $part in doc/sql.md are what psql shows");
}

my $settings = slurp("$doc/configuration.md");
my @rows = sql_rows($node, q{SELECT name, short_desc FROM pg_settings WHERE name LIKE 'boocoder.%' ORDER BY 1});
cmp_ok(scalar @rows, '>', 20, 'there are settings');
like($settings, qr/^\| `\Q$_->{name}\E` \|/m, "$_->{name} is in doc/configuration.md") for @rows;
my %known = map { $_->{name} => 1 } @rows;
for my $name ($settings =~ /^\| `(boocoder\.\w+)`/mg)
{
	ok($known{$name}, "$name exists");
}

my %reasons;
my $src = "$FindBin::RealBin/../../src/runner";
for my $file (glob "$src/*.c")
{
	my $code = slurp($file);
	$reasons{$1} = 1 while $code =~ /(?:finish|settle|fail_and_terminate)\("failed",\s*"(\w+)"/g;
}
my $sql = join '', map { slurp($_) } glob "$FindBin::RealBin/../../sql/[0-9]*.sql";
$reasons{$1} = 1 while $sql =~ /ARRAY\['(\w+)',/g && $1 !~ /^(?:modes?|permission_request|reject|completed|api|boocoder_viewer)$/;
for my $reason (sort keys %reasons)
{
	next if $reason =~ /^(?:agent_sessions)$/;
	like($text, qr/`\Q$reason\E`/, "reason $reason is in doc/sql.md");
}
$node->stop;
done_testing();
