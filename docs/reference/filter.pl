#!/usr/bin/perl
# A header as Doxygen is to read it: the comment on top is about the file, comments before and beside declarations document
# them, indented lines stay as they are, the versioned namespace is ppma, and what follows from a rule of the house is said
# by that rule.
use strict;
use warnings;
open(my $in, '<', $ARGV[0]) or die "$ARGV[0]: $!";
my @lines = map { s/\s+$//r } <$in>;
my ($top, @out) = (1);
my $file = $ARGV[0] =~ s,^.*include/ppma/,ppma/,r;

# Text of a comment without what Doxygen would take for commands and tags.
sub plain { my $s = shift; $s =~ s{([\\\@#])(?=\w)}{\\$1}g; $s =~ s/<(?=[A-Za-z])/\\</g; return $s; }

# A block of comment lines, as documentation.
sub documentation {
  my ($indent, @text) = @_;
  my @made;
  my $verbatim = 0;
  for my $line (@text) {
    if ($line =~ /^  / && !$verbatim) { push @made, '' if @made && $made[-1] ne ''; $verbatim = 1; }
    elsif ($line !~ /^  / && $line ne '' && $verbatim) { push @made, '' if $made[-1] ne ''; $verbatim = 0; }
    push @made, $verbatim && $line ne '' ? "    $line" : plain($line);
  }
  return map { "$indent///" . ($_ eq '' ? '' : /^ / ? $_ : " $_") } @made;
}

# What a declaration without a comment is documented by.
sub by_rule {
  my ($line) = @_;
  return 'Equal if all values are.' if $line =~ /operator==\(.*= default;/;
  return 'Names tensors and parts, or values (algorithm 7: fields).' if $line =~ /void fields\(/;
  return '@private' if $line =~ /^struct \w+<\w+> \{/;
  return "See the head of \@ref $file." if $line =~ /^\s*(?:struct|class) \w+(?: : .*)? \{/;
  return '@private' if $line =~ /\(const \w+&\) = (?:delete|default);|\bTensor\(const Tensor& other\);|\(\w+&&(?: other)?\)(?: noexcept| = default);|operator=\(\w+&& other\) noexcept;|operator=\(const \w+& other\);|^\s+(?:PPMA_ONCE )?(?:PPMA_API )?(?:virtual )?~/;
  return 'With initial weights drawn from rng (algorithm 3.8).' if $line =~ /^\s+(?:PPMA_API )?[A-Z]\w*\(.*Rng&? rng/;
  return 'With initial weights drawn from seed (algorithm 3.8).' if $line =~ /^\s+explicit [A-Z]\w*\(.*u64 seed = 0\)/;
  return;
}

my $declarations = 1;
my (%said, $comment);    # documentation of functions by name, for overloads that follow
my (@pending, @shared);  # documentation of the declaration that has begun; of the one that ended in the line before
for (my $i = 0; $i < @lines; ++$i) {
  my $line = $lines[$i];
  $declarations = 0 if $line =~ /^#if PPMA_HEADER_ONLY/;
  $line =~ s/\bnamespace ppma::inline PPMA_ABI\b/namespace ppma/;
  if ($line =~ /^namespace detail \{/) {  # not for those who use the library
    ++$i while $i < @lines && $lines[$i] !~ m,^\}  // namespace detail,;
    @pending = @shared = ();
    next;
  }
  if (!$declarations) { push @out, $line; next; }
  if ($line =~ m,^(\s*)//,) {
    my ($indent, @text) = ($1);
    for (; $i < @lines && $lines[$i] =~ m,^\s*//+ ?(.*)$,; ++$i) { push @text, $1; }
    --$i;
    shift @text if $text[0] =~ /^---- .* ---/;  # a heading among declarations
    next if !@text;
    my @made = documentation($indent, @text);
    unshift @made, '/// @file' if $top;
    $top = 0;
    @pending = $indent eq '' ? @made : () if $indent eq '';
    @shared = ();
    push @out, @made;
    $comment = \@made;
    next;
  }
  if ($line =~ m,^(.*[;{\,]) +// (.*)$, && $line !~ /^#/) {
    my ($code, $words) = ($1, $2);
    if ($code =~ /\{$/) { push @out, '/// ' . plain($words), $code; } else { push @out, "$code  ///< " . plain($words); }
    next;
  }
  # Declarations that follow one another without a blank line share what is said of the first.
  @pending = @shared = () if $line eq '' || $line =~ /^(?:namespace|#)/;
  if (@shared && $line =~ /^\w/) { push @out, @shared; @pending = @shared; }
  @shared = $line =~ /^(?:\w.*|    .*);$|^\}$|^\w.*\}$/ ? @pending : ();
  my $first = $line =~ /^\s*template/ && $i + 1 < @lines ? $lines[$i + 1] : $line;
  my $before = @out ? $out[-1] : '';
  my $rule = by_rule($first);
  if ($rule && $before !~ /^\s*template/ && ($before !~ m,^\s*//, || $rule eq '@private')) { push @out, "  /// $rule"; }
  # An overload has what is said of the one before it in the same class.
  %said = () if $line =~ /^\s*(?:struct|class) \w+.*\{/;
  if ($line =~ /^ *(?!return|if|for|check|else)[\w:<>,&\* \[\]~]*?\b(operator\W+|\w+)\(/ && $line !~ /^ {4}/) {
    my $name = $1;
    if ($comment) { $said{$name} = $comment; }
    elsif ($said{$name} && $name !~ /^forward$/ && $out[-1] !~ m,^\s*///,) {
      my $at = $out[-1] =~ /^\s*template/ ? -1 : @out;
      splice @out, $at, 0, @{$said{$name}};
    }
  }
  $comment = undef unless $line =~ /^\s*template/;
  push @out, $line;
}
print map { "$_\n" } @out;
