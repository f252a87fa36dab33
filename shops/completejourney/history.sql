-- What happens in the shop and when (DuckDB). Reads the wheel's files as views and the fields of
-- `Life` as variables; leaves one table per step of `replay.py`, with the tick of its commit.

-- A number in [0, 1) that depends on the purpose and the row's key alone.
CREATE MACRO dice(purpose, id) AS
    (md5_number_lower(purpose || ':' || id::VARCHAR) >> 11)::DOUBLE / 9007199254740992;

-- The upload that brings what happened at `moment`: tick n is committed n steps after opening.
CREATE MACRO tick_of(moment) AS
    floor(date_diff('second', getvariable('opening'), moment)
          / (3600 * getvariable('tick_hours')))::INTEGER + 1;

-- A delay drawn from `days` = [shortest, longest), in ticks.
CREATE MACRO delay(purpose, id, days) AS
    floor((days[1] + dice(purpose || ', days', id) * (days[2] - days[1]))
          * 24 / getvariable('tick_hours'))::INTEGER;

-- The shop's weeks begin on Monday at midnight where the shop is; the files' times are UTC.
CREATE TABLE weeks AS
SELECT week::BIGINT AS week, starts_at, lead(starts_at) OVER (ORDER BY week) AS ends_at
FROM (
    SELECT week, timezone('America/New_York', TIMESTAMP '2016-12-26' + to_days(7 * (week - 1)))
                 ::TIMESTAMP AS starts_at
    FROM (SELECT unnest(range(1, 56))::INTEGER AS week)
);

---------------------------------------------------------------------------- shoppers, products
CREATE TABLE households AS
SELECT household_id, age, income, home_ownership, marital_status, household_size, household_comp,
       kids_count
FROM (SELECT DISTINCT household_id FROM transactions)
LEFT JOIN demographics USING (household_id)
WHERE dice('shopper', household_id) < getvariable('share');

-- Shelf prices: what the median line of a week paid for a piece, over all shoppers. Fuel sold
-- by volume, whose quantity is no number of pieces, falls out: its price rounds to nothing.
CREATE TABLE paid AS
SELECT product_id, week, median(sales_value / quantity)::DECIMAL(10, 2) AS price
FROM transactions
SEMI JOIN products USING (product_id)
SEMI JOIN (FROM weeks WHERE starts_at < getvariable('until')) USING (week)
WHERE quantity > 0
GROUP BY ALL
HAVING price >= 0.01;

CREATE TABLE opening_products AS
SELECT product_id, manufacturer_id, department, brand, product_category, product_type,
       package_size, price
FROM products LEFT JOIN (FROM paid WHERE week = 1) USING (product_id);

CREATE TABLE price_moves AS
SELECT tick_of(ends_at) AS tick, product_id, price,
       dice('price broken', product_id || '/' || week) < getvariable('broken_price_rate') AS broken
FROM (SELECT *, lag(price) OVER (PARTITION BY product_id ORDER BY week) AS before FROM paid)
JOIN weeks USING (week)
WHERE week > 1 AND price IS DISTINCT FROM before;

CREATE TABLE price_updates AS
SELECT tick, product_id, if(broken, -price, price) AS price FROM price_moves
UNION ALL
SELECT tick + (getvariable('broken_price_days') * 24 / getvariable('tick_hours'))::INTEGER,
       product_id, price
FROM price_moves WHERE broken;

----------------------------------------------------------------------------------------- orders
CREATE TABLE sold AS
SELECT basket_id AS order_id,
       row_number() OVER (PARTITION BY basket_id ORDER BY product_id)::INTEGER AS line_no,
       household_id, product_id, store_id, transaction_timestamp AS ordered_at, quantity,
       sales_value::DECIMAL(10, 2) AS sales_value, retail_disc::DECIMAL(10, 2) AS retail_disc,
       coupon_disc::DECIMAL(10, 2) AS coupon_disc,
       coupon_match_disc::DECIMAL(10, 2) AS coupon_match_disc
FROM transactions
SEMI JOIN households USING (household_id)
WHERE transaction_timestamp < getvariable('until');

CREATE TABLE baskets AS
SELECT order_id, any_value(household_id) AS household_id, any_value(store_id) AS store_id,
       any_value(ordered_at) AS ordered_at, sum(sales_value)::DECIMAL(10, 2) AS total,
       tick_of(any_value(ordered_at))
       + if(dice('order late', order_id) < getvariable('late_order_rate'),
            delay('order late', order_id, getvariable('late_order_days')), 0) AS tick,
       dice('cancelled', order_id) < getvariable('cancelled_rate') AS cancelled,
       if(dice('order broken', order_id) < getvariable('broken_order_rate'),
          floor(3 * dice('order fault', order_id))::INTEGER, NULL) AS fault
FROM sold
GROUP BY order_id;

CREATE TABLE orders_new AS
SELECT tick, order_id,
       if(fault IS NOT DISTINCT FROM 0, NULL, household_id) AS household_id,
       store_id,
       if(fault IS NOT DISTINCT FROM 1, ordered_at + INTERVAL 100 DAY, ordered_at) AS ordered_at,
       if(fault IS NOT DISTINCT FROM 2, -1 - total, total) AS total
FROM baskets;

CREATE TABLE orders_cancelled AS
SELECT tick + delay('cancelled', order_id, getvariable('cancelled_days')) AS tick, order_id
FROM baskets WHERE cancelled;

CREATE TABLE delivered AS
SELECT sold.*,
       baskets.tick
       + if(late AND NOT cancelled, delay('line late', key, getvariable('late_line_days')), 0)
       AS tick,
       broken AS faulty,
       if(broken, floor(5 * dice('line fault', key))::INTEGER, NULL) AS fault,
       typo AND NOT broken AND NOT cancelled
       AND quantity BETWEEN 1 AND getvariable('corrected_most_pieces') AS corrected,
       twice AND NOT cancelled AS twice,
       key
FROM (
    SELECT *, order_id || '/' || line_no AS key,
           dice('line late', key) < getvariable('late_line_rate') AS late,
           dice('line broken', key) < getvariable('broken_line_rate') AS broken,
           dice('corrected', key) < getvariable('corrected_rate') AS typo,
           dice('duplicate', key) < getvariable('duplicate_rate') AS twice
    FROM sold
) AS sold
JOIN baskets USING (order_id);

CREATE TABLE lines_once AS
SELECT tick, order_id, line_no,
       if(fault IS NOT DISTINCT FROM 0, NULL, household_id) AS household_id,
       if(fault IS NOT DISTINCT FROM 1, NULL, product_id) AS product_id,
       store_id,
       if(fault IS NOT DISTINCT FROM 2, ordered_at + INTERVAL 100 DAY, ordered_at) AS ordered_at,
       CASE WHEN fault = 3 THEN -greatest(quantity, 1)
            WHEN corrected THEN quantity + 1
            ELSE quantity END AS quantity,
       if(fault IS NOT DISTINCT FROM 4, sales_value + 1000000, sales_value)::DECIMAL(10, 2)
       AS sales_value,
       retail_disc, coupon_disc, coupon_match_disc,
       -- A second delivery after the correction would bring the typing error back.
       twice AND NOT corrected AS twice, key
FROM delivered;

CREATE TABLE lines_new AS
SELECT * EXCLUDE (twice, key) FROM lines_once
UNION ALL
SELECT * EXCLUDE (twice, key) REPLACE (
    tick + if(dice('duplicate later', key) < getvariable('duplicate_later_rate'),
              delay('duplicate', key, getvariable('duplicate_days')), 0) AS tick)
FROM lines_once WHERE twice;

CREATE TABLE lines_corrected AS
SELECT tick + delay('corrected', key, getvariable('corrected_days')) AS tick,
       order_id, line_no, quantity
FROM delivered WHERE corrected;

------------------------------------------------------------------------------------- promotions
-- A store listed twice for a product's week (two displays) counts twice: 0.3 % of product-weeks.
CREATE TABLE promoted AS
SELECT product_id, starts_at AS valid_from, ends_at AS valid_until,
       least(displays / stores, 1) AS display_share, least(mailers / stores, 1) AS mailer_share,
       product_id || '/' || week AS key,
       dice('promotion', key) AS lot,
       tick_of(valid_from) AS start_tick
FROM (
    SELECT product_id, week,
           count(*) FILTER (display_location <> '0') AS displays,
           count(*) FILTER (mailer_location <> '0') AS mailers
    FROM promotions
    SEMI JOIN (FROM weeks WHERE starts_at < getvariable('until') + INTERVAL 10 DAY) USING (week)
    GROUP BY ALL
)
JOIN (SELECT week, count(DISTINCT store_id) AS stores FROM promotions GROUP BY week) USING (week)
JOIN weeks USING (week)
WHERE greatest(displays, mailers) >= getvariable('promotion_least_share') * stores;

CREATE TABLE promotion_fates AS
SELECT *,
       lot < getvariable('promotion_withdrawn_rate') AS withdrawn,
       NOT withdrawn
       AND lot < getvariable('promotion_withdrawn_rate') + getvariable('promotion_changed_rate')
       AS changed,
       if(dice('promotion broken', key) < getvariable('broken_promotion_rate'),
          floor(2 * dice('promotion fault', key))::INTEGER, NULL) AS fault,
       greatest(start_tick - delay('announced', key, getvariable('promotion_announced_days')), 0)
       AS tick,
       greatest(start_tick + delay('promotion', key, getvariable('promotion_changed_days')), 1)
       AS later_tick
FROM promoted;

CREATE TABLE promotions_new AS
SELECT tick, product_id, valid_from,
       if(fault IS NOT DISTINCT FROM 0, valid_from - INTERVAL 1 DAY, valid_until) AS valid_until,
       if(changed, display_share / 2, display_share) AS display_share,
       CASE WHEN fault = 1 THEN 100 * mailer_share + 2
            WHEN changed THEN mailer_share / 2
            ELSE mailer_share END AS mailer_share
FROM promotion_fates;

CREATE TABLE promotions_changed AS
SELECT later_tick AS tick, product_id, valid_from, display_share, mailer_share
FROM promotion_fates WHERE changed;

CREATE TABLE promotions_withdrawn AS
SELECT later_tick AS tick, product_id, valid_from FROM promotion_fates WHERE withdrawn;

---------------------------------------------------------------------------------------- coupons
CREATE TABLE coupons_new AS
SELECT greatest(tick_of(start_date - to_days(getvariable('coupon_announced_days')::INTEGER)), 0)
       AS tick,
       campaign_id, coupon_upc, product_id, start_date AS valid_from,
       end_date + INTERVAL 1 DAY AS valid_until
FROM coupons JOIN campaign_descriptions USING (campaign_id);
