-- The features of the bundled shop's groups of one week, as one would write them in DuckDB: from
-- `lines` (what stands of a year, one row a shopper, order and item) and this week's `changes`.
-- Variables: now and until, the week's edges in microseconds. Without latent factors.
CREATE OR REPLACE MACRO ratio(part, whole) AS part / nullif(whole::DOUBLE, 0);
-- `least` would take the bound for an unknown value.
CREATE OR REPLACE MACRO capped(x, most) AS if(x IS NULL, NULL, least(x, most));
CREATE OR REPLACE MACRO days(us) AS us / 86400000000.0;
CREATE OR REPLACE MACRO ago(d) AS getvariable('now') - d * 86400000000;

CREATE OR REPLACE TEMP TABLE week_groups AS
WITH standing AS (
    SELECT * FROM changes
    QUALIFY row_number() OVER (PARTITION BY order_id, line_no ORDER BY position DESC) = 1
), sound AS (
    SELECT * FROM standing WHERE op <> 'delete' AND u IS NOT NULL AND t <= committed + 86400000000
), orders AS (
    SELECT order_id::VARCHAR AS group_id, min(u) AS u, min(t) AS group_time FROM sound
    WHERE i IS NOT NULL GROUP BY 1
)
SELECT *, greatest(group_time, getvariable('now')) AS context_time FROM orders
WHERE group_time >= getvariable('now') - 8 * 7 * 86400000000
      AND group_id NOT IN (SELECT group_id FROM formed);

CREATE OR REPLACE TEMP TABLE pairs AS
SELECT u, i, count(*) AS n, count(*) FILTER (t >= ago(28)) AS n28, sum(decayed)::BIGINT AS decayed,
       min(t) AS first, max(t) AS last,
       sum(greatest(0, least(q, 20000)))::BIGINT AS pieces
FROM lines GROUP BY u, i;

CREATE OR REPLACE TEMP TABLE sold AS
SELECT i, count(*) FILTER (t >= ago(28)) AS n28, count(*) FILTER (t >= ago(7)) AS n7,
       count(DISTINCT u) FILTER (t >= ago(28)) AS shoppers28, sum(decayed)::BIGINT AS decayed,
       sum(paid)::BIGINT AS paid, sum(q)::BIGINT AS pieces
FROM lines WHERE t >= ago(182) GROUP BY i;

CREATE OR REPLACE TEMP TABLE whole AS
SELECT count(*) FILTER (t >= ago(28)) AS n28, count(*) FILTER (t >= ago(7)) AS n7,
       sum(decayed) FILTER (t >= ago(182))::BIGINT AS decayed, count(DISTINCT u) AS shoppers,
       count(DISTINCT u) FILTER (t >= ago(28)) AS shoppers28
FROM lines;

CREATE OR REPLACE TEMP TABLE things AS
WITH banded AS (
    SELECT *, if(price IS NULL, NULL,
                 ntile(5) OVER (PARTITION BY category ORDER BY price NULLS LAST, i) - 1) AS band
    FROM items
), repeats AS (
    SELECT i, count(*) AS shoppers, count(*) FILTER (n > 1) AS repeaters, sum(n - 1) AS gaps,
           sum(last - first)::BIGINT AS gap_sum, min(first) AS first
    FROM pairs GROUP BY i
), typical AS (
    SELECT category, median(price) AS category_price FROM items
    WHERE price IS NOT NULL AND category IS NOT NULL GROUP BY category
)
SELECT i, b.category, b.department, b.brand, b.band, b.price, b.listed, t.category_price,
       s.n28, s.n7, s.shoppers28, s.decayed, s.paid, s.pieces,
       r.shoppers, r.repeaters, r.gaps, r.gap_sum, r.first,
       percent_rank() OVER (ORDER BY coalesce(s.shoppers28, 0) DESC) AS rank,
       rank() OVER (PARTITION BY b.category ORDER BY coalesce(s.shoppers28, 0) DESC) - 1
           AS category_rank
FROM (SELECT i FROM items UNION SELECT i FROM repeats) LEFT JOIN banded AS b USING (i)
LEFT JOIN sold AS s USING (i) LEFT JOIN repeats AS r USING (i)
LEFT JOIN typical AS t USING (category);

CREATE OR REPLACE TEMP TABLE people AS
WITH orders AS (
    SELECT u, o, min(t) AS t, count(*) AS n, sum(paid)::BIGINT AS paid, sum(decayed) AS decayed
    FROM lines GROUP BY u, o
)
SELECT u, count(*) AS orders, count(*) FILTER (t >= ago(182)) AS orders182,
       count(*) FILTER (t >= ago(28)) AS orders28, min(t) AS first, max(t) AS last,
       sum(n) AS n, sum(n) FILTER (t >= ago(182)) AS n182, sum(paid)::BIGINT AS paid,
       sum(decayed)::BIGINT AS decayed, any_value(kinds) AS kinds
FROM orders JOIN (SELECT u, count(DISTINCT i) AS kinds FROM lines GROUP BY u) USING (u)
GROUP BY u;

CREATE OR REPLACE TEMP TABLE leaning AS
SELECT l.*, category, department, brand, band FROM lines AS l LEFT JOIN things USING (i)
WHERE l.t >= ago(182);

CREATE OR REPLACE TEMP TABLE by_category AS
SELECT u, category, count(*) AS orders, sum(n) AS n, min(t) AS first, max(t) AS last
FROM (SELECT u, category, o, max(t) AS t, count(*) AS n FROM leaning
      WHERE category IS NOT NULL GROUP BY ALL) GROUP BY u, category;
CREATE OR REPLACE TEMP TABLE by_department AS
SELECT u, department, count(*) AS n, max(t) AS last FROM leaning
WHERE department IS NOT NULL GROUP BY ALL;
CREATE OR REPLACE TEMP TABLE by_brand AS
SELECT u, brand, count(*) AS n, max(t) AS last FROM leaning WHERE brand IS NOT NULL GROUP BY ALL;
CREATE OR REPLACE TEMP TABLE by_band AS
SELECT u, band, count(*) AS n, max(t) AS last FROM leaning WHERE band IS NOT NULL GROUP BY ALL;

CREATE OR REPLACE TEMP TABLE near AS
WITH lately AS (SELECT o, i FROM lines_of_all WHERE t >= ago(56)),
held AS (SELECT i, count(*) AS held FROM lately GROUP BY i HAVING held >= 3),
small AS (SELECT o FROM lately GROUP BY o HAVING count(*) <= 100),
baskets AS (SELECT o, i FROM lately SEMI JOIN small USING (o) SEMI JOIN held USING (i)),
both_ways AS (
    SELECT a.i AS beside, b.i, count(*) AS n FROM baskets AS a JOIN baskets AS b
    ON a.o = b.o AND a.i <> b.i GROUP BY ALL HAVING n >= 3
)
SELECT beside, x.i, round(n * 1000000 / sqrt((h.held * k.held)::DOUBLE))::BIGINT AS likeness
FROM both_ways AS x JOIN held AS h ON h.i = beside JOIN held AS k ON k.i = x.i
QUALIFY row_number() OVER (PARTITION BY beside ORDER BY likeness DESC, x.i) <= 20;

CREATE OR REPLACE TEMP TABLE who AS SELECT DISTINCT u FROM week_groups;
CREATE OR REPLACE TEMP TABLE own AS SELECT * FROM pairs SEMI JOIN who USING (u);
CREATE OR REPLACE TEMP TABLE beside AS
WITH latest AS (
    SELECT u, i AS beside FROM own
    QUALIFY row_number() OVER (PARTITION BY u ORDER BY last DESC, i) <= 40
)
SELECT u, i, sum(likeness)::BIGINT AS co_sum, max(likeness) AS co_max,
       row_number() OVER (PARTITION BY u ORDER BY sum(likeness) DESC, i) AS place
FROM latest JOIN near USING (beside) GROUP BY u, i;

CREATE OR REPLACE TEMP TABLE proposed AS
WITH popular AS (
    SELECT i FROM things WHERE shoppers28 > 0 ORDER BY shoppers28 DESC, i LIMIT 300
), tops AS (
    SELECT category, i FROM things WHERE shoppers28 > 0 AND category IS NOT NULL
    QUALIFY row_number() OVER (PARTITION BY category ORDER BY shoppers28 DESC, i) <= 10
), favourite AS (
    SELECT u, category, row_number() OVER (PARTITION BY u ORDER BY orders DESC, category) AS nth
    FROM by_category SEMI JOIN who USING (u) QUALIFY nth <= 40
), offered AS (
    SELECT i FROM segments WHERE starts < getvariable('until') AND ends > getvariable('now')
), promoted AS (
    SELECT i FROM things WHERE shoppers28 > 0 AND i IN (FROM offered)
    ORDER BY shoppers28 DESC, i LIMIT 200
), unsold AS (
    SELECT i, category, listed, i IN (FROM offered) AS offered FROM things
    WHERE first IS NULL AND category IS NOT NULL
), fresh AS (
    SELECT *, row_number() OVER (PARTITION BY category ORDER BY offered DESC, listed DESC, i)
        AS place
    FROM unsold WHERE offered OR listed >= ago(28) QUALIFY place <= 3
), novel AS (
    SELECT u, i FROM favourite JOIN fresh USING (category)
    QUALIFY row_number() OVER (PARTITION BY u ORDER BY offered DESC, nth, place) <= 5
), stacked AS (
    SELECT u, i, 1 AS source FROM own
    UNION ALL SELECT u, i, 2 FROM who CROSS JOIN popular
    UNION ALL SELECT u, i, 4 FROM favourite JOIN tops USING (category)
    UNION ALL SELECT u, i, 8 FROM beside WHERE place <= 200
    UNION ALL SELECT u, i, 32 FROM who CROSS JOIN promoted
    UNION ALL SELECT u, i, 64 FROM novel
), merged AS (SELECT u, i, sum(source)::INTEGER AS sources FROM stacked GROUP BY u, i),
scored AS (
    SELECT u, i, sources, round(
        sqrt(coalesce(p.decayed, 0) / 1000000 * (0.3 + coalesce(t.repeaters / t.shoppers, 0)))
        + 2 * popularity
        + 0.5 * sqrt(10 * coalesce(c.orders / h.orders182, 0) * popularity), 9) AS prior
    FROM (SELECT m.*, coalesce(t.shoppers28, 0) / greatest(w.shoppers28, 1) AS popularity
          FROM merged AS m LEFT JOIN things AS t USING (i) CROSS JOIN whole AS w) AS m
    LEFT JOIN things AS t USING (i) LEFT JOIN own AS p USING (u, i)
    LEFT JOIN people AS h USING (u) LEFT JOIN by_category AS c ON c.u = m.u AND c.category = t.category
)
FROM (
    SELECT *, row_number() OVER (PARTITION BY u ORDER BY prior DESC, i) AS prior_rank FROM scored
    QUALIFY sources >= 64 OR prior_rank <= 300
) QUALIFY sources >= 64 OR prior_rank <= 300 - sum(sources // 64) OVER (PARTITION BY u);

CREATE OR REPLACE TEMP VIEW built AS
SELECT g.group_id, g.u AS shopper_id, i AS item_id,
    coalesce(p.n, 0) AS pair_orders,
    coalesce(p.n28, 0) AS pair_orders_28d,
    coalesce(p.decayed, 0) / 1e6 AS pair_orders_faded,
    ratio(coalesce(p.n, 0), h.orders) AS pair_share,
    days(g.context_time - p.last) AS pair_days_since,
    ratio(days(p.last - p.first), p.n - 1) AS pair_gap_days,
    capped(ratio(days(g.context_time - p.last), ratio(days(p.last - p.first), p.n - 1)), 10) AS pair_cycle,
    capped(ratio(days(g.context_time - p.last), ratio(days(t.gap_sum), t.gaps)), 10) AS pair_item_cycle,
    capped(ratio(ratio(days(p.last - p.first), p.n - 1), ratio(days(t.gap_sum), t.gaps)), 10) AS pair_regularity,
    ratio(coalesce(p.decayed, 0), h.decayed) AS pair_faded_share,
    ratio(p.pieces / 1000, p.n) AS pair_quantity,
    ratio(coalesce(c.orders, 0), h.orders182) AS category_share,
    days(g.context_time - c.last) AS category_days_since,
    capped(ratio(days(g.context_time - c.last), ratio(days(c.last - c.first), c.orders - 1)), 10) AS category_cycle,
    capped(ratio(coalesce(p.n, 0), c.n), 2) AS pair_share_of_category,
    ratio(coalesce(d.n, 0), h.n182) AS department_share,
    days(g.context_time - d.last) AS department_days_since,
    ratio(coalesce(b.n, 0), h.n182) AS brand_share,
    days(g.context_time - b.last) AS brand_days_since,
    ratio(coalesce(a.n, 0), h.n182) AS price_band_share,
    days(g.context_time - a.last) AS price_band_days_since,
    ratio(coalesce(t.shoppers28, 0), w.shoppers28) AS item_popularity_28d,
    ratio(1000 * coalesce(t.n7, 0), w.n7) AS item_popularity_7d,
    t.rank AS item_rank,
    capped(t.category_rank, 100) AS item_category_rank,
    capped(ratio(ratio(coalesce(t.n7, 0), w.n7), ratio(coalesce(t.n28, 0), w.n28)), 4) AS item_trend,
    ratio(1000 * coalesce(t.decayed, 0), w.decayed) AS item_faded_share,
    days(g.context_time - t.first) AS item_novelty_days,
    ratio(coalesce(t.shoppers, 0), w.shoppers) AS item_shoppers,
    ratio(t.repeaters, t.shoppers) AS item_repeat_rate,
    t.price / 100 AS price,
    capped(ratio(t.price, t.category_price), 10) AS price_to_category,
    -capped(-capped(ratio(t.price, ratio(t.paid * 1000, t.pieces)), 10), -0.1) AS price_to_paid,
    capped(ratio(t.price, ratio(h.paid, h.n)), 10) AS price_to_shopper,
    coalesce(s.display, 0) AS period_display, coalesce(s.mailer, 0) AS period_mailer,
    coalesce(h.orders28, 0) AS shopper_orders_28d,
    days(g.context_time - h.last) AS shopper_days_since,
    ratio(days(h.last - h.first), h.orders - 1) AS shopper_gap_days,
    ratio(h.n, h.orders) AS shopper_basket,
    ratio(h.paid / 100, h.orders) AS shopper_spend,
    ratio(h.kinds, h.n) AS shopper_breadth,
    coalesce(n.co_sum, 0) / 1e6 AS copurchase_sum, coalesce(n.co_max, 0) / 1e6 AS copurchase_max,
    x.sources % 2 AS from_repurchase, x.sources // 2 % 2 AS from_popularity,
    x.sources // 4 % 2 AS from_category, x.sources // 8 % 2 AS from_copurchase,
    x.sources // 32 % 2 AS from_promoted, x.sources // 64 AS from_novel, x.prior, x.prior_rank,
    g.group_time // 3600000000 % 24 AS hour, (g.group_time // 86400000000 + 3) % 7 AS weekday,
    sin(days(g.group_time) / 365.25 * 2 * pi()) AS season_sine,
    cos(days(g.group_time) / 365.25 * 2 * pi()) AS season_cosine
FROM week_groups AS g JOIN proposed AS x USING (u) LEFT JOIN own AS p USING (u, i)
LEFT JOIN beside AS n USING (u, i) LEFT JOIN things AS t USING (i) LEFT JOIN people AS h USING (u)
LEFT JOIN by_category AS c ON c.u = g.u AND c.category = t.category
LEFT JOIN by_department AS d ON d.u = g.u AND d.department = t.department
LEFT JOIN by_brand AS b ON b.u = g.u AND b.brand = t.brand
LEFT JOIN by_band AS a ON a.u = g.u AND a.band = t.band
LEFT JOIN segments AS s ON s.i = x.i AND s.starts <= g.context_time AND s.ends > g.context_time
CROSS JOIN whole AS w;
