#!/usr/bin/perl
# Makes the reference's pages of the repository's: pages.pl FOLDER, from the root. Headings get the names by which links
# find them, links lead to the reference's own pages, and each lesson becomes a page with its code and its output.
use strict;
use warnings;
my $folder = $ARGV[0] or die "pages.pl FOLDER\n";
my %label = ('README.md' => 'readme', 'benchmarks/README.md' => 'benchmarks', 'CONTRIBUTING.md' => 'contributing',
             'CHANGELOG.md' => 'changelog');
for (glob 'docs/*.md') { (my $name = $_) =~ s,docs/(.*)\.md,$1,; $label{$_} = $name; }
my @lessons = glob 'examples/[0-9][0-9]_*.cpp';
for (@lessons) { m,/(\d\d), and $label{$_} = "lesson_$1"; }

sub slug { my $s = lc shift; $s =~ s/[^\w -]//g; $s =~ s/ /-/g; return $s; }

# A link of the page `from` as one of the reference.
sub link_of {
  my ($from, $text, $target) = @_;
  return "[$text]($target)" if $target =~ m,^https?:,;
  my ($file, $anchor) = $target =~ /^([^#]*)#?(.*)$/;
  my @path = split m,/, , $from;
  pop @path;
  for (split m,/, , $file) { if ($_ eq '..') { pop @path; } elsif ($_ ne '.') { push @path, $_; } }
  my $to = $file eq '' ? $from : join '/', @path;
  (my $plain = $text) =~ s/\s*\n\s*/ /g;  # a reference's text is one line, without code
  $plain =~ s/`//g;
  return "[$plain](\@ref $label{$to}" . ($anchor ? "-$anchor" : '') . ')' if $label{$to};
  return "[$plain](\@ref $1)" if $to =~ m,^include/(ppma/(?!kernels).*\.hpp)$,;
  return $text;
}

sub page {
  my ($from) = @_;
  my ($titled, $out) = (0, '');
  for my $part (split /(^```.*?^```\n)/ms, read_file($from)) {  # code and the rest in turn
    if ($part !~ /^```/) {
      $part =~ s/^(#+) +(.*?)[ \t]*$/"$1 $2 {#" . ($titled++ ? "$label{$from}-" . slug($2) : $label{$from}) . "}"/gme;
      $part =~ s,!\[([^\]]*)\]\((?:[^)]*/)?([^)/]+)\),<img src="$2" alt="$1">,g;
      $part =~ s/\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)/link_of($from, $1, $2)/ge;
    }
    $out .= $part;
  }
  write_file("$label{$from}.md", $out);
}

sub write_file {
  my ($name, $text) = @_;
  open(my $out, '>', "$folder/$name") or die "$folder/$name: $!";
  print $out $text;
}
sub read_file { my ($name) = @_; local $/; open(my $in, '<', $name) or die "$name: $!"; return scalar <$in>; }

page($_) for grep { /\.md$/ } sort keys %label;
for my $lesson (@lessons) {
  my $source = read_file($lesson);
  my ($head) = $source =~ m,\A((?://.*\n)+),;
  my $code = substr $source, length $head;
  $head =~ s,^// ?,,mg;
  my ($title, $rest) = $head =~ /\A([^.]*\.)\s*(.*)\z/s;
  $title =~ s/\n/ /g;
  $title =~ s/\.$//;
  $rest =~ s/^ /    /mg if $rest =~ /^  /m;  # formulas
  (my $expected = $lesson) =~ s,examples/(.*)\.cpp,examples/expected/$1.txt,;
  write_file("$label{$lesson}.md", "# $title {#$label{$lesson}}\n\n$rest\n```{.cpp}\n" . $code . "```\n\n" . (-e "docs/pictures/$label{$lesson}.png" ? "<img src=\"$label{$lesson}.png\" alt=\"what it draws\">\n\n" : '')
             . "## What it prints\n\n```\n"
             . read_file($expected) . "```\n");
}
# Lessons hang below the course in the navigation.
my $course = read_file("$folder/course.md");
$course =~ s/\[[^\]]*\]\(\@ref (lesson_\d\d)\)/\@subpage $1/g;
write_file('course.md', $course);
write_file('namespace.dox', "/** \@namespace ppma\n * All of the library. What a folder of headers is for: \@ref readme-where-things-are. */\n");
