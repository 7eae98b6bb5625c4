#pragma once
#include "ppma/core/names_begin.hpp"
// The style of a run's page (vis/report.hpp), in light and dark.

#include <string_view>

#include "ppma/core/config.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

inline constexpr std::string_view report_style = R"(
:root { color-scheme: light dark; --ground: #f6f6f3; --card: #ffffff; --ink: #1f2328;
  --pale: #5c636b; --line: #e1e2df; --good: #12803c; --bad: #bf3a1e; --on: #ffffff;
  --s0: #0072b2; --s1: #c24e00; --s2: #00805e; --s3: #a8457f; --s4: #8a6100; --s5: #28749c;
  --font: system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif; }
@media (prefers-color-scheme: dark) { :root { --ground: #14171a; --card: #1d2125;
  --ink: #e8eaec; --pale: #a2aab2; --line: #343a40; --good: #3fb46b; --bad: #f0734f;
  --on: #101214; --s0: #56b4e9; --s1: #ff9d5c; --s2: #35c99a; --s3: #e59bc6; --s4: #e6b94f;
  --s5: #8fc7e8; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); font: 15px/1.5 var(--font); }
main { max-width: 1180px; margin: 0 auto; padding: 28px 20px 60px; }
h1 { font-size: 26px; line-height: 1.25; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 18px; margin: 36px 0 12px; }
h3 { font-size: 14px; margin: 0 0 8px; }
p { margin: 4px 0 0; color: var(--pale); overflow-wrap: anywhere; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 16px; min-width: 0; }
.cards { display: grid; gap: 16px; align-items: start;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 440px), 1fr)); }
.facts { grid-template-columns: repeat(auto-fit, minmax(min(100%, 340px), 1fr)); }
.run { columns: 3 320px; column-gap: 16px; }
.run .card { break-inside: avoid; margin-bottom: 16px; }
.figures { display: grid; gap: 12px; margin-top: 20px;
  grid-template-columns: repeat(auto-fit, minmax(140px, 1fr)); }
.figures .card { padding: 12px 16px; }
.figures b { display: block; font-size: 24px; line-height: 1.25;
  font-variant-numeric: tabular-nums; }
.figures span, figcaption, small { color: var(--pale); font-size: 13px; }
.scroll { overflow-x: auto; }
.tall { max-height: 620px; overflow-y: auto; }
table { border-collapse: collapse; width: 100%; font-size: 14px;
  font-variant-numeric: tabular-nums; }
th, td { padding: 5px 8px; text-align: right; vertical-align: top;
  border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
thead th { position: sticky; top: 0; background: var(--card); color: var(--pale);
  font-weight: 500; }
td small { display: block; }
td:first-child { overflow-wrap: anywhere; min-width: 6.5em; }
th[scope=row] { color: var(--pale); font-weight: 400; overflow-wrap: anywhere; }
.run th[scope=row] { white-space: nowrap; }
th[scope=row] + td { overflow-wrap: anywhere; }
th + td:last-child { padding-right: 0; }
tr:last-child :is(th, td) { border-bottom: 0; }
thead tr :is(th, td) { border-bottom: 1px solid var(--line); }
@media (max-width: 480px) { main { padding: 20px 12px 40px; } .card { padding: 12px; }
  th, td { padding: 5px 4px; } }
.share { background: linear-gradient(to right,
  color-mix(in srgb, var(--good) 24%, transparent) var(--p), transparent var(--p)); }
.images { display: grid; gap: 14px;
  grid-template-columns: repeat(auto-fill, minmax(104px, 1fr)); }
figure { margin: 0; min-width: 0; overflow-wrap: anywhere; line-height: 1.35; }
figure img { display: block; width: 100%; height: auto; border-radius: 6px;
  border: 1px solid var(--line); margin-bottom: 6px; background: var(--line); }
figure img.small { image-rendering: pixelated; }
figure b { color: var(--good); font-size: 14px; }
.wrongly figure b { color: var(--bad); }
.scenes { grid-template-columns: repeat(auto-fill, minmax(min(100%, 420px), 1fr)); }
.views { display: grid; gap: 6px; grid-template-columns: repeat(3, minmax(0, 1fr)); }
.views span { color: var(--pale); font-size: 12px; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 14px; margin: 0 0 12px; font-size: 13px; }
.legend i { display: inline-block; width: 12px; height: 12px; border-radius: 3px;
  margin-right: 6px; vertical-align: -1px; }
.decays { max-width: 720px; }
.maps { display: grid; grid-template-columns: 1fr 3fr; margin-top: 6px; }
.maps img { display: block; width: 100%; height: auto; image-rendering: pixelated; }
.heads { display: grid; grid-template-columns: repeat(4, minmax(0, 1fr)); font-size: 13px;
  color: var(--pale); margin-top: 12px; }
.slide { display: flex; gap: 12px; align-items: center; }
.slide input { flex: 1; min-width: 0; accent-color: var(--s0); }
.slide output { min-width: 9em; font-variant-numeric: tabular-nums; }
.scale, .scale div div { font-size: 12px; color: var(--pale); }
.scale { display: grid; grid-template-columns: 1fr 3fr; }
.scale div { display: grid; grid-template-columns: 2fr 1fr; gap: 0 12px; }
.scale div div { display: block; }
.scale b { display: block; height: 8px; margin-top: 8px; background: linear-gradient(to right,
  #440154, #414487, #2a788e, #22a884, #7ad151, #fde725); }
.scale span { display: flex; justify-content: space-between; }
.scale i { font-style: normal; }
[hidden] { display: none !important; }
svg { display: block; width: 100%; height: auto; font: 11px var(--font);
  max-width: calc(1.5 * var(--w)); min-width: min(calc(0.68 * var(--w)), 520px); }
svg .tick { fill: var(--pale); }
svg .name { fill: var(--ink); font-size: 10.5px; }
svg .count { fill: var(--ink); font-size: 10px; }
svg .on { fill: var(--on); }
svg .grid { stroke: var(--line); }
svg .axis { stroke: var(--pale); }
svg .equal { stroke: var(--pale); stroke-dasharray: 4 4; }
svg .bar { fill: var(--s0); fill-opacity: 0.75; }
svg .ground { fill: var(--ground); }
svg .right { fill: var(--good); }
svg .wrong { fill: var(--bad); }
svg polyline { stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; }
.s0 { fill: var(--s0); } polyline.s0 { fill: none; stroke: var(--s0); }
.s1 { fill: var(--s1); } polyline.s1 { fill: none; stroke: var(--s1); }
.s2 { fill: var(--s2); } polyline.s2 { fill: none; stroke: var(--s2); }
.s3 { fill: var(--s3); } polyline.s3 { fill: none; stroke: var(--s3); }
.s4 { fill: var(--s4); } polyline.s4 { fill: none; stroke: var(--s4); }
.s5 { fill: var(--s5); } polyline.s5 { fill: none; stroke: var(--s5); }
)";

}  // namespace detail

}  // namespace ppma::inline PPMA_ABI

#include "ppma/core/names_end.hpp"
