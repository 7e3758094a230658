CREATE TABLE products (
    product_id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    weight_grams INTEGER NOT NULL
);
