-- The shop's database (PostgreSQL).

DROP TABLE IF EXISTS
    public.households, public.products, public.orders, public.order_lines, public.promotions,
    public.coupons
CASCADE;

CREATE TABLE public.households (
    household_id bigint PRIMARY KEY,
    age text,
    income text,
    home_ownership text,
    marital_status text,
    household_size text,
    household_comp text,
    kids_count text
);

CREATE TABLE public.products (
    product_id bigint PRIMARY KEY,
    manufacturer_id bigint,
    department text,
    brand text,
    product_category text,
    product_type text,
    package_size text,
    price numeric(10, 2)
);

CREATE TABLE public.orders (
    order_id bigint PRIMARY KEY,
    household_id bigint,
    store_id bigint,
    ordered_at timestamptz,
    total numeric(10, 2)
);

-- Meant to be one row an (order_id, line_no). Nothing enforces it: the tills deliver twice.
CREATE TABLE public.order_lines (
    order_id bigint,
    line_no integer,
    household_id bigint,
    product_id bigint,
    store_id bigint,
    ordered_at timestamptz,
    quantity bigint,
    sales_value numeric(10, 2),
    retail_disc numeric(10, 2),
    coupon_disc numeric(10, 2),
    coupon_match_disc numeric(10, 2)
);
CREATE INDEX order_lines_order_id ON public.order_lines (order_id);

CREATE TABLE public.promotions (
    product_id bigint,
    valid_from timestamptz,
    valid_until timestamptz,
    display_share double precision,
    mailer_share double precision,
    PRIMARY KEY (product_id, valid_from)
);

-- Meant to be one row a (campaign_id, coupon_upc, product_id); some come twice.
CREATE TABLE public.coupons (
    campaign_id bigint,
    coupon_upc bigint,
    product_id bigint,
    valid_from timestamptz,
    valid_until timestamptz
);
