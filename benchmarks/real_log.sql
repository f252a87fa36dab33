-- Changes of the bundled shop's first weeks (DuckDB), for tests of features.
CREATE MACRO dice(purpose, id) AS
    (md5_number_lower(purpose || ':' || id::VARCHAR) >> 11)::DOUBLE / 9007199254740992;
CREATE MACRO committed(moment) AS time_bucket(INTERVAL 3 HOUR, moment) + INTERVAL 3 HOUR;
CREATE MACRO monday(week) AS TIMESTAMP '2016-12-26' + to_days(7 * (week::INTEGER - 1));

CREATE TABLE lines AS
SELECT basket_id AS order_id,
       row_number() OVER (PARTITION BY basket_id ORDER BY product_id)::INTEGER AS line_no,
       household_id, product_id, store_id, transaction_timestamp AS ordered_at, quantity,
       sales_value, retail_disc, coupon_disc, coupon_match_disc,
       basket_id || '/' || line_no AS key,
       committed(ordered_at)
       + if(dice('late', key) < 0.01, to_days(1 + floor(9 * dice('days', key))::INTEGER),
            INTERVAL 0 DAY) AS landed
FROM transactions_file
WHERE dice('shopper', household_id) < getvariable('share')
      AND transaction_timestamp < TIMESTAMP '2017-01-02' + to_days(7 * getvariable('weeks'));

CREATE TABLE order_lines AS
SELECT *, row_number() OVER (ORDER BY _committed_at, _op = 'delete', key, _op) AS _position,
       '1' AS _transaction
FROM (
    SELECT *, 'insert' AS _op, landed AS _committed_at FROM lines
    UNION ALL
    SELECT *, 'delete', greatest(landed, committed(ordered_at) + INTERVAL 3 DAY) + INTERVAL 1 HOUR
    FROM lines WHERE dice('cancelled', order_id) < 0.006
    UNION ALL
    SELECT * REPLACE (quantity + 1 AS quantity), 'update', landed + INTERVAL 1 DAY
    FROM lines WHERE dice('corrected', key) < 0.004
);

CREATE TABLE households AS
SELECT household_id, NULL AS household_size, 'insert' AS _op,
       TIMESTAMP '2017-01-01' AS _committed_at, row_number() OVER (ORDER BY household_id) AS _position,
       '1' AS _transaction
FROM (SELECT DISTINCT household_id FROM transactions_file
      WHERE dice('shopper', household_id) < getvariable('share'));

CREATE TABLE paid AS
SELECT product_id, week, median(sales_value / quantity)::DECIMAL(10, 2) AS price
FROM transactions_file WHERE quantity > 0 AND week <= getvariable('weeks') + 1
GROUP BY ALL HAVING price >= 0.01;

CREATE TABLE products AS
SELECT product_id, manufacturer_id, department, brand, product_category, product_type,
       package_size, price, _op, _committed_at,
       row_number() OVER (ORDER BY _committed_at, product_id) AS _position, '1' AS _transaction
FROM (
    SELECT p.*, price, 'insert' AS _op, TIMESTAMP '2017-01-01' AS _committed_at
    FROM products_file AS p LEFT JOIN (FROM paid WHERE week = 1) USING (product_id)
    UNION ALL
    SELECT p.*, price, 'update', monday(week + 1)
    FROM products_file AS p
    JOIN (SELECT *, lag(price) OVER (PARTITION BY product_id ORDER BY week) AS before FROM paid)
    USING (product_id)
    WHERE week > 1 AND price IS DISTINCT FROM before
);

CREATE TABLE promotions AS
SELECT product_id, monday(week) AS valid_from, monday(week + 1) AS valid_until,
       displays / stores AS display_share, mailers / stores AS mailer_share, 'insert' AS _op,
       greatest(valid_from - INTERVAL 4 DAY, TIMESTAMP '2017-01-01') AS _committed_at,
       row_number() OVER (ORDER BY week, product_id) AS _position, '1' AS _transaction
FROM (
    SELECT product_id, week,
           count(DISTINCT store_id) FILTER (display_location <> '0') AS displays,
           count(DISTINCT store_id) FILTER (mailer_location <> '0') AS mailers,
           110 AS stores
    FROM promotions_file WHERE week <= getvariable('weeks') + 1 GROUP BY ALL
)
WHERE greatest(displays, mailers) >= 0.2 * stores;
