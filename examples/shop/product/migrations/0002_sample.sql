-- What the shop sells on its first day. A product that is deleted later does not come back.
INSERT INTO products (product_id, name, weight_grams) VALUES
    (1, 'Brass desk lamp', 1850),
    (2, 'Oak chair', 6200),
    (3, 'Enamel kettle', 940),
    (4, 'Linen apron', 310),
    (5, 'Cast-iron pan', 2700),
    (6, 'Wall clock', 780),
    (7, 'Wool blanket', 1450),
    (8, 'Garden shears', 420),
    (9, 'Storm lantern', 990),
    (10, 'Bread bin', 1630),
    (113, 'Tin opener', 120),
    (213, 'Door stop', 260);
