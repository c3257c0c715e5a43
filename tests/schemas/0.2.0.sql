PRAGMA application_id = 1937337955;
PRAGMA user_version = 1;
BEGIN TRANSACTION;
CREATE TABLE "_sqlite_migrations" (
   "id" INTEGER PRIMARY KEY,
   "migration_set" TEXT,
   "name" TEXT,
   "applied_at" TEXT
);
INSERT INTO "_sqlite_migrations" VALUES(1,'syncd','first_contract','2026-11-28 11:21:24.713536+00:00');
INSERT INTO "_sqlite_migrations" VALUES(2,'syncd','webhook_states','2026-11-28 11:21:24.714578+00:00');
INSERT INTO "_sqlite_migrations" VALUES(3,'syncd','deliveries_by_variant','2026-11-28 11:21:24.715261+00:00');
INSERT INTO "_sqlite_migrations" VALUES(4,'syncd','sweep_faults','2026-11-28 11:21:24.716386+00:00');
INSERT INTO "_sqlite_migrations" VALUES(5,'syncd','named_variants','2026-11-28 11:21:24.717180+00:00');
INSERT INTO "_sqlite_migrations" VALUES(6,'syncd','standard_names_and_chains','2026-11-28 11:21:24.732900+00:00');
INSERT INTO "_sqlite_migrations" VALUES(7,'syncd','reading_never_ends','2026-11-28 11:21:24.734130+00:00');
INSERT INTO "_sqlite_migrations" VALUES(8,'syncd','listings_and_reasons','2026-11-28 11:21:24.736325+00:00');
INSERT INTO "_sqlite_migrations" VALUES(9,'syncd','positions_of_pushes','2026-11-28 11:21:24.736961+00:00');
INSERT INTO "_sqlite_migrations" VALUES(10,'syncd','compared_changes','2026-11-28 11:21:24.737834+00:00');
CREATE TABLE calls (call_id INTEGER PRIMARY KEY, at TEXT NOT NULL);
CREATE TABLE "change_log" (
    seq INTEGER PRIMARY KEY,
    previous_seq INTEGER,           -- of the same variant
    variant_id INTEGER NOT NULL,
    item_id INTEGER,
    old_availability TEXT,
    availability TEXT,
    old_sellable INTEGER NOT NULL,
    sellable INTEGER NOT NULL,
    cause TEXT NOT NULL,
    rule TEXT NOT NULL,
    missed INTEGER NOT NULL,
    during_downtime INTEGER NOT NULL, -- missed while the daemon could not receive deliveries
    occurred_at TEXT NOT NULL,
    recorded_at TEXT NOT NULL
);
INSERT INTO "change_log" VALUES(1,NULL,48005,73,NULL,'low_stock',0,1,'read','settled',0,0,'2026-03-01T12:00:00.000000Z','2026-03-01T12:00:00.000000Z');
INSERT INTO "change_log" VALUES(2,NULL,48008,73,NULL,'in_stock',0,1,'read','settled',0,0,'2026-03-01T12:00:00.000000Z','2026-03-01T12:00:00.000000Z');
INSERT INTO "change_log" VALUES(3,NULL,48009,73,NULL,'in_stock',0,1,'read','settled',0,0,'2026-03-01T12:00:00.000000Z','2026-03-01T12:00:00.000000Z');
INSERT INTO "change_log" VALUES(4,NULL,48010,73,NULL,'out_of_stock',0,0,'read','settled',0,0,'2026-03-01T12:00:00.000000Z','2026-03-01T12:00:00.000000Z');
INSERT INTO "change_log" VALUES(5,NULL,48014,73,NULL,'in_stock',0,1,'read','settled',0,0,'2026-03-01T12:00:00.000000Z','2026-03-01T12:00:00.000000Z');
INSERT INTO "change_log" VALUES(6,NULL,48018,73,NULL,'in_stock',0,1,'read','settled',0,0,'2026-03-01T12:00:00.000000Z','2026-03-01T12:00:00.000000Z');
INSERT INTO "change_log" VALUES(7,NULL,48023,73,NULL,'in_stock',0,1,'read','settled',0,0,'2026-03-01T12:00:00.000000Z','2026-03-01T12:00:00.000000Z');
INSERT INTO "change_log" VALUES(8,NULL,48027,73,NULL,'out_of_stock',0,0,'read','settled',0,0,'2026-03-01T12:00:00.000000Z','2026-03-01T12:00:00.000000Z');
INSERT INTO "change_log" VALUES(9,NULL,48032,73,NULL,'in_stock',0,1,'read','settled',0,0,'2026-03-01T12:00:00.000000Z','2026-03-01T12:00:00.000000Z');
INSERT INTO "change_log" VALUES(10,NULL,48034,73,NULL,'in_stock',0,1,'read','settled',0,0,'2026-03-01T12:00:00.000000Z','2026-03-01T12:00:00.000000Z');
INSERT INTO "change_log" VALUES(11,NULL,48038,73,NULL,'low_stock',0,1,'read','settled',0,0,'2026-03-01T12:00:00.000000Z','2026-03-01T12:00:00.000000Z');
INSERT INTO "change_log" VALUES(12,NULL,48039,73,NULL,'in_stock',0,1,'read','settled',0,0,'2026-03-01T12:00:00.000000Z','2026-03-01T12:00:00.000000Z');
INSERT INTO "change_log" VALUES(13,NULL,48044,73,NULL,'out_of_stock',0,0,'read','settled',0,0,'2026-03-01T12:00:00.000000Z','2026-03-01T12:00:00.000000Z');
INSERT INTO "change_log" VALUES(14,NULL,48045,73,NULL,'in_stock',0,1,'read','settled',0,0,'2026-03-01T12:00:00.000000Z','2026-03-01T12:00:00.000000Z');
INSERT INTO "change_log" VALUES(15,NULL,48048,73,NULL,'in_stock',0,1,'read','settled',0,0,'2026-03-01T12:00:00.000000Z','2026-03-01T12:00:00.000000Z');
INSERT INTO "change_log" VALUES(16,NULL,48051,73,NULL,'out_of_stock',0,0,'read','settled',0,0,'2026-03-01T12:00:00.000000Z','2026-03-01T12:00:00.000000Z');
INSERT INTO "change_log" VALUES(17,NULL,48056,73,NULL,'out_of_stock',0,0,'read','settled',0,0,'2026-03-01T12:00:00.000000Z','2026-03-01T12:00:00.000000Z');
INSERT INTO "change_log" VALUES(18,NULL,48060,73,NULL,'in_stock',0,1,'read','settled',0,0,'2026-03-01T12:00:00.000000Z','2026-03-01T12:00:00.000000Z');
INSERT INTO "change_log" VALUES(19,NULL,48062,73,NULL,'in_stock',0,1,'read','settled',0,0,'2026-03-01T12:00:00.000000Z','2026-03-01T12:00:00.000000Z');
INSERT INTO "change_log" VALUES(20,NULL,48067,73,NULL,'low_stock',0,1,'read','settled',0,0,'2026-03-01T12:00:00.000000Z','2026-03-01T12:00:00.000000Z');
INSERT INTO "change_log" VALUES(21,8,48027,73,'out_of_stock','in_stock',0,1,'webhook','newer',0,0,'2026-03-01T12:01:00.000001Z','2026-03-01T12:01:00.000005Z');
INSERT INTO "change_log" VALUES(22,12,48039,73,'in_stock','low_stock',1,1,'webhook','newer',0,0,'2026-03-01T12:01:00.000002Z','2026-03-01T12:01:00.000005Z');
INSERT INTO "change_log" VALUES(23,19,48062,73,'in_stock','out_of_stock',1,0,'webhook','newer',0,0,'2026-03-01T12:01:00.000003Z','2026-03-01T12:01:00.000005Z');
INSERT INTO "change_log" VALUES(24,20,48067,73,'low_stock','in_stock',1,1,'webhook','newer',0,0,'2026-03-01T12:01:00.000004Z','2026-03-01T12:01:00.000005Z');
INSERT INTO "change_log" VALUES(25,16,48051,73,'out_of_stock','low_stock',0,1,'webhook','newer',0,0,'2026-03-01T12:01:00.000005Z','2026-03-01T12:01:00.000005Z');
CREATE TABLE counts (
    name TEXT NOT NULL,
    hour TEXT NOT NULL,
    n INTEGER NOT NULL,
    PRIMARY KEY (name, hour)
) WITHOUT ROWID;
CREATE TABLE "deliveries" (
    delivery_id INTEGER PRIMARY KEY,
    previous_delivery_id INTEGER,   -- of the same variant; NULL: none, or it has no rule
    event_id TEXT NOT NULL,
    content_key TEXT NOT NULL,      -- a retry with newer data is no copy
    received_at TEXT NOT NULL,
    event_at TEXT,
    action TEXT,
    variant_id INTEGER,
    item_id INTEGER,
    outcome TEXT NOT NULL,
    rule TEXT,
    reason TEXT,
    duplicates INTEGER NOT NULL DEFAULT 0,
    named_variants TEXT,            -- JSON list: the variants in a quarantined body
    body BLOB                       -- NULL if it is not about availability
);
INSERT INTO "deliveries" VALUES(1,NULL,'b15552ab-c9d7-47bf-9268-5e580ad83cd8','48027=in_stock','2026-03-01T12:01:00.000001Z','2026-03-01T12:01:00.000001Z','item-variant-availability-updated',48027,73,'applied','newer',NULL,0,NULL,X'7B226964223A2034383032372C20226F626A656374223A20226974656D5F76617269616E74222C20226576656E74223A207B2275756964223A202262313535353261622D633964372D343762662D393236382D356535383061643833636438222C20226F626A6563745F6964223A2034383032372C20226F626A6563745F74797065223A20226974656D5F76617269616E74222C2022616374696F6E223A20226974656D2D76617269616E742D617661696C6162696C6974792D75706461746564222C20226D657373616765223A20224368616E676564207468726F756768207468652073696D756C61746F72222C202274696D657374616D70223A2022323032362D30332D30315431323A30313A30302E3030303030315A222C202275736572223A202253797374656D227D2C202264617461223A207B226964223A2034383032372C20226E616D65223A202253706F72742047726579202F2053222C2022636F6C6F72223A207B226964223A20312C20226E616D65223A202253706F72742047726579222C20227072696D6172795F686578223A202223313131222C20227061747465726E223A206E756C6C7D2C202273697A65223A207B226964223A20312C20226E616D65223A202253227D2C2022617661696C6162696C697479223A2022696E5F73746F636B222C2022636F7374223A2022392E3530222C202262617369635F636F7374223A20382E37352C20226974656D223A2037337D7D');
INSERT INTO "deliveries" VALUES(2,NULL,'0d2eec6a-87d6-43d7-ad48-d9583e412285','48039=low_stock','2026-03-01T12:01:00.000002Z','2026-03-01T12:01:00.000002Z','item-variant-availability-updated',48039,73,'applied','newer',NULL,0,NULL,X'7B226964223A2034383033392C20226F626A656374223A20226974656D5F76617269616E74222C20226576656E74223A207B2275756964223A202230643265656336612D383764362D343364372D616434382D643935383365343132323835222C20226F626A6563745F6964223A2034383033392C20226F626A6563745F74797065223A20226974656D5F76617269616E74222C2022616374696F6E223A20226974656D2D76617269616E742D617661696C6162696C6974792D75706461746564222C20226D657373616765223A20224368616E676564207468726F756768207468652073696D756C61746F72222C202274696D657374616D70223A2022323032362D30332D30315431323A30313A30302E3030303030325A222C202275736572223A202253797374656D227D2C202264617461223A207B226964223A2034383033392C20226E616D65223A2022426C61636B202F204D222C2022636F6C6F72223A207B226964223A20312C20226E616D65223A2022426C61636B222C20227072696D6172795F686578223A202223313131222C20227061747465726E223A206E756C6C7D2C202273697A65223A207B226964223A20312C20226E616D65223A20224D227D2C2022617661696C6162696C697479223A20226C6F775F73746F636B222C2022636F7374223A2022392E3530222C202262617369635F636F7374223A20382E37352C20226974656D223A2037337D7D');
INSERT INTO "deliveries" VALUES(3,NULL,'8b2aa0de-5de9-41d4-8801-709765f5a4bf','48062=out_of_stock','2026-03-01T12:01:00.000003Z','2026-03-01T12:01:00.000003Z','item-variant-availability-updated',48062,73,'applied','newer',NULL,0,NULL,X'7B226964223A2034383036322C20226F626A656374223A20226974656D5F76617269616E74222C20226576656E74223A207B2275756964223A202238623261613064652D356465392D343164342D383830312D373039373635663561346266222C20226F626A6563745F6964223A2034383036322C20226F626A6563745F74797065223A20226974656D5F76617269616E74222C2022616374696F6E223A20226974656D2D76617269616E742D617661696C6162696C6974792D75706461746564222C20226D657373616765223A20224368616E676564207468726F756768207468652073696D756C61746F72222C202274696D657374616D70223A2022323032362D30332D30315431323A30313A30302E3030303030335A222C202275736572223A202253797374656D227D2C202264617461223A207B226964223A2034383036322C20226E616D65223A202253706F72742047726579202F204D222C2022636F6C6F72223A207B226964223A20312C20226E616D65223A202253706F72742047726579222C20227072696D6172795F686578223A202223313131222C20227061747465726E223A206E756C6C7D2C202273697A65223A207B226964223A20312C20226E616D65223A20224D227D2C2022617661696C6162696C697479223A20226F75745F6F665F73746F636B222C2022636F7374223A2022392E3530222C202262617369635F636F7374223A20382E37352C20226974656D223A2037337D7D');
INSERT INTO "deliveries" VALUES(4,NULL,'05681069-147e-46b7-a2e3-5bb9b020ae13','48067=in_stock','2026-03-01T12:01:00.000004Z','2026-03-01T12:01:00.000004Z','item-variant-availability-updated',48067,73,'applied','newer',NULL,0,NULL,X'7B226964223A2034383036372C20226F626A656374223A20226974656D5F76617269616E74222C20226576656E74223A207B2275756964223A202230353638313036392D313437652D343662372D613265332D356262396230323061653133222C20226F626A6563745F6964223A2034383036372C20226F626A6563745F74797065223A20226974656D5F76617269616E74222C2022616374696F6E223A20226974656D2D76617269616E742D617661696C6162696C6974792D75706461746564222C20226D657373616765223A20224368616E676564207468726F756768207468652073696D756C61746F72222C202274696D657374616D70223A2022323032362D30332D30315431323A30313A30302E3030303030345A222C202275736572223A202253797374656D227D2C202264617461223A207B226964223A2034383036372C20226E616D65223A20224D61726F6F6E202F20584C222C2022636F6C6F72223A207B226964223A20312C20226E616D65223A20224D61726F6F6E222C20227072696D6172795F686578223A202223313131222C20227061747465726E223A206E756C6C7D2C202273697A65223A207B226964223A20312C20226E616D65223A2022584C227D2C2022617661696C6162696C697479223A2022696E5F73746F636B222C2022636F7374223A2022392E3530222C202262617369635F636F7374223A20382E37352C20226974656D223A2037337D7D');
INSERT INTO "deliveries" VALUES(5,NULL,'0bb4784b-ff14-4f49-8a5e-a53c2cb9c348','48051=low_stock','2026-03-01T12:01:00.000005Z','2026-03-01T12:01:00.000005Z','item-variant-availability-updated',48051,73,'applied','newer',NULL,0,NULL,X'7B226964223A2034383035312C20226F626A656374223A20226974656D5F76617269616E74222C20226576656E74223A207B2275756964223A202230626234373834622D666631342D346634392D386135652D613533633263623963333438222C20226F626A6563745F6964223A2034383035312C20226F626A6563745F74797065223A20226974656D5F76617269616E74222C2022616374696F6E223A20226974656D2D76617269616E742D617661696C6162696C6974792D75706461746564222C20226D657373616765223A20224368616E676564207468726F756768207468652073696D756C61746F72222C202274696D657374616D70223A2022323032362D30332D30315431323A30313A30302E3030303030355A222C202275736572223A202253797374656D227D2C202264617461223A207B226964223A2034383035312C20226E616D65223A20224D61726F6F6E202F204D222C2022636F6C6F72223A207B226964223A20312C20226E616D65223A20224D61726F6F6E222C20227072696D6172795F686578223A202223313131222C20227061747465726E223A206E756C6C7D2C202273697A65223A207B226964223A20312C20226E616D65223A20224D227D2C2022617661696C6162696C697479223A20226C6F775F73746F636B222C2022636F7374223A2022392E3530222C202262617369635F636F7374223A20382E37352C20226974656D223A2037337D7D');
INSERT INTO "deliveries" VALUES(6,NULL,'sha256:e3c39e09dd55e8f6f27cb6edacd8d50507358a64026ef0d132917f13176c3f7f','!e3c39e09dd55e8f6f27cb6edacd8d50507358a64026ef0d132917f13176c3f7f','2026-03-01T12:01:00.000005Z',NULL,NULL,NULL,NULL,'quarantined',NULL,'it names no variant: data.id, event.object_id and id are missing',0,NULL,X'7B226F626A656374223A20226974656D5F76617269616E74222C20226576656E74223A207B7D7D');
INSERT INTO "deliveries" VALUES(7,NULL,'sha256:889e2b28554ff5202f717a079bffa8c53fbbf914398f96112af40754115cee5a','!889e2b28554ff5202f717a079bffa8c53fbbf914398f96112af40754115cee5a','2026-03-01T12:01:00.000005Z',NULL,NULL,NULL,NULL,'quarantined',NULL,'it names no variant: data.id, event.object_id and id are missing',0,NULL,X'7B226F626A656374223A20226974656D5F76617269616E74222C20226576656E74223A207B22616374696F6E223A20226974656D2D76617269616E742D617661696C6162696C6974792D75706461746564227D7D');
CREATE TABLE items (
    item_id INTEGER PRIMARY KEY,
    name TEXT,
    confirmed_at TEXT,              -- when the last read of it began, by this host's clock
    read_at TEXT,                   -- the Date of that answer, Dreamship's clock
    is_gone INTEGER NOT NULL DEFAULT 0, -- that read was answered 404
    attempts INTEGER NOT NULL DEFAULT 0,
    not_before TEXT                 -- back-off after failed reads
, is_read INTEGER NOT NULL DEFAULT 0, release_status TEXT, operational_status TEXT, countries TEXT, is_blocked INTEGER NOT NULL DEFAULT 0);
INSERT INTO "items" VALUES(73,'An item','2026-03-01T12:00:00.000000Z','2026-03-01T12:00:00.000000Z',0,0,NULL,1,NULL,NULL,NULL,0);
CREATE TABLE list_rows (
    item_id INTEGER PRIMARY KEY,
    fingerprint INTEGER NOT NULL,           -- of its row at the last reading of the list
    changed_at TEXT,                        -- when the row changed, if the item was not read since
    is_awaited INTEGER NOT NULL DEFAULT 0   -- the item changed; the list shows whether its row did
, checked_seq INTEGER NOT NULL DEFAULT 0);
CREATE TABLE pushes (               -- where each `[[push]]` goes on
    name TEXT PRIMARY KEY,
    mirror TEXT NOT NULL,           -- `mirror_id` of the mirror whose feed has `seq`
    only TEXT NOT NULL,             -- 'all' or 'listings'
    listings INTEGER NOT NULL,      -- `listings_version` at the full copy
    run INTEGER NOT NULL,           -- rises with each full copy, and with `syncd push --from`
    seq INTEGER NOT NULL,           -- every change up to it is taken
    copied INTEGER,                 -- the last variant of a full copy that is taken
    pending INTEGER                 -- the end of the batch that is being sent
);
CREATE TABLE refresh_queue (
    item_id INTEGER PRIMARY KEY,
    urgent_at TEXT,                  -- a doubt: ask from then on; NULL: no hurry
    settle_at TEXT NOT NULL,        -- from when on a read of it settles something
    final_at TEXT NOT NULL         -- from when on it settles everything
);
INSERT INTO "refresh_queue" VALUES(73,NULL,'2026-03-01T12:02:00.000001Z','2026-03-01T12:02:00.000005Z');
CREATE TABLE skus (                                 -- the rows of `catalog.listings`
    sku TEXT PRIMARY KEY,
    variant_id INTEGER NOT NULL,
    title TEXT,
    listed_at TEXT NOT NULL,        -- when its variant was named first
    not_found_at TEXT               -- a whole sweep found no item with its variant
);
CREATE TABLE state (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID
;
CREATE TABLE sweep_items (
    sweep_id INTEGER NOT NULL,
    item_id INTEGER NOT NULL,
    state TEXT NOT NULL DEFAULT 'todo',
    attempts INTEGER NOT NULL DEFAULT 0,
    run INTEGER NOT NULL DEFAULT 0, error TEXT, -- the run of the listing that showed it last; 0: none did
    PRIMARY KEY (sweep_id, item_id)
) WITHOUT ROWID;
CREATE TABLE sweeps (
    sweep_id INTEGER PRIMARY KEY AUTOINCREMENT,
    cause TEXT NOT NULL,
    is_catalogue INTEGER NOT NULL,
    began_at TEXT NOT NULL,
    ended_at TEXT,
    position TEXT,                  -- JSON, where the listing stands; NULL: nothing is listed
    is_listing INTEGER NOT NULL DEFAULT 0,
    listing_changed INTEGER NOT NULL DEFAULT 0, -- what it listed was gone when it was asked for
    accepts_removals INTEGER NOT NULL DEFAULT 0,
    removals_blocked INTEGER NOT NULL DEFAULT 0, -- too much is absent to be believed
    removals_held INTEGER NOT NULL DEFAULT 0,      -- so many variants were therefore not removed
    result TEXT,
    items INTEGER NOT NULL DEFAULT 0,
    variants INTEGER NOT NULL DEFAULT 0,
    changed INTEGER NOT NULL DEFAULT 0,
    added INTEGER NOT NULL DEFAULT 0,
    removed INTEGER NOT NULL DEFAULT 0,
    missed INTEGER NOT NULL DEFAULT 0,
    calls INTEGER NOT NULL DEFAULT 0,
    throttled INTEGER NOT NULL DEFAULT 0,
    failed_items TEXT NOT NULL DEFAULT '[]',
    error TEXT NOT NULL DEFAULT ''
, is_paced INTEGER NOT NULL DEFAULT 0);
CREATE TABLE "unplaced_variants" (
    variant_id INTEGER PRIMARY KEY, -- no delivery named its item, and the mirror does not know it
    delivered_at TEXT NOT NULL,
    not_found_at TEXT                -- a whole sweep did not find it
);
CREATE TABLE variants (
    variant_id INTEGER PRIMARY KEY,
    item_id INTEGER,
    name TEXT,
    color TEXT,
    size TEXT,
    value TEXT,                     -- availability as received; NULL: gone from the catalogue
    conflicting_values TEXT,                    -- JSON list of values set against it; NULL: none
    sellable INTEGER NOT NULL,
    event_at TEXT,
    delivered_at TEXT,
    confirmed_at TEXT NOT NULL,     -- its own; a read of the item may be newer
    changed_at TEXT NOT NULL,
    source TEXT NOT NULL,
    rule TEXT NOT NULL,             -- what wrote this row last
    decided_at TEXT NOT NULL,        -- and when
    missing_since TEXT                  -- since when a sweep that has not ended does not find it
, last_delivery_id INTEGER, last_change_seq INTEGER, cost TEXT, basic_cost TEXT);
INSERT INTO "variants" VALUES(48005,73,'Black','Black','2XL','low_stock',NULL,1,NULL,NULL,'2026-03-01T12:00:00.000000Z','2026-03-01T12:00:00.000000Z','read','settled','2026-03-01T12:00:00.000000Z',NULL,NULL,1,NULL,NULL);
INSERT INTO "variants" VALUES(48008,73,'Navy','Navy','2XL','in_stock',NULL,1,NULL,NULL,'2026-03-01T12:00:00.000000Z','2026-03-01T12:00:00.000000Z','read','settled','2026-03-01T12:00:00.000000Z',NULL,NULL,2,NULL,NULL);
INSERT INTO "variants" VALUES(48009,73,'White','White','M','in_stock',NULL,1,NULL,NULL,'2026-03-01T12:00:00.000000Z','2026-03-01T12:00:00.000000Z','read','settled','2026-03-01T12:00:00.000000Z',NULL,NULL,3,NULL,NULL);
INSERT INTO "variants" VALUES(48010,73,'Forest Green','Forest Green','M','out_of_stock',NULL,0,NULL,NULL,'2026-03-01T12:00:00.000000Z','2026-03-01T12:00:00.000000Z','read','settled','2026-03-01T12:00:00.000000Z',NULL,NULL,4,NULL,NULL);
INSERT INTO "variants" VALUES(48014,73,'Sport Grey','Sport Grey','2XL','in_stock',NULL,1,NULL,NULL,'2026-03-01T12:00:00.000000Z','2026-03-01T12:00:00.000000Z','read','settled','2026-03-01T12:00:00.000000Z',NULL,NULL,5,NULL,NULL);
INSERT INTO "variants" VALUES(48018,73,'Forest Green','Forest Green','S','in_stock',NULL,1,NULL,NULL,'2026-03-01T12:00:00.000000Z','2026-03-01T12:00:00.000000Z','read','settled','2026-03-01T12:00:00.000000Z',NULL,NULL,6,NULL,NULL);
INSERT INTO "variants" VALUES(48023,73,'Royal','Royal','3XL','in_stock',NULL,1,NULL,NULL,'2026-03-01T12:00:00.000000Z','2026-03-01T12:00:00.000000Z','read','settled','2026-03-01T12:00:00.000000Z',NULL,NULL,7,NULL,NULL);
INSERT INTO "variants" VALUES(48027,73,'Sport Grey / S','Sport Grey','S','in_stock',NULL,1,'2026-03-01T12:01:00.000001Z','2026-03-01T12:01:00.000001Z','2026-03-01T12:01:00.000001Z','2026-03-01T12:01:00.000005Z','webhook','newer','2026-03-01T12:01:00.000005Z',NULL,1,21,'9.50','8.75');
INSERT INTO "variants" VALUES(48032,73,'Navy','Navy','M','in_stock',NULL,1,NULL,NULL,'2026-03-01T12:00:00.000000Z','2026-03-01T12:00:00.000000Z','read','settled','2026-03-01T12:00:00.000000Z',NULL,NULL,9,NULL,NULL);
INSERT INTO "variants" VALUES(48034,73,'White','White','S','in_stock',NULL,1,NULL,NULL,'2026-03-01T12:00:00.000000Z','2026-03-01T12:00:00.000000Z','read','settled','2026-03-01T12:00:00.000000Z',NULL,NULL,10,NULL,NULL);
INSERT INTO "variants" VALUES(48038,73,'Maroon','Maroon','L','low_stock',NULL,1,NULL,NULL,'2026-03-01T12:00:00.000000Z','2026-03-01T12:00:00.000000Z','read','settled','2026-03-01T12:00:00.000000Z',NULL,NULL,11,NULL,NULL);
INSERT INTO "variants" VALUES(48039,73,'Black / M','Black','M','low_stock',NULL,1,'2026-03-01T12:01:00.000002Z','2026-03-01T12:01:00.000002Z','2026-03-01T12:01:00.000002Z','2026-03-01T12:01:00.000005Z','webhook','newer','2026-03-01T12:01:00.000005Z',NULL,2,22,'9.50','8.75');
INSERT INTO "variants" VALUES(48044,73,'Royal','Royal','2XL','out_of_stock',NULL,0,NULL,NULL,'2026-03-01T12:00:00.000000Z','2026-03-01T12:00:00.000000Z','read','settled','2026-03-01T12:00:00.000000Z',NULL,NULL,13,NULL,NULL);
INSERT INTO "variants" VALUES(48045,73,'Sport Grey','Sport Grey','XL','in_stock',NULL,1,NULL,NULL,'2026-03-01T12:00:00.000000Z','2026-03-01T12:00:00.000000Z','read','settled','2026-03-01T12:00:00.000000Z',NULL,NULL,14,NULL,NULL);
INSERT INTO "variants" VALUES(48048,73,'Black','Black','S','in_stock',NULL,1,NULL,NULL,'2026-03-01T12:00:00.000000Z','2026-03-01T12:00:00.000000Z','read','settled','2026-03-01T12:00:00.000000Z',NULL,NULL,15,NULL,NULL);
INSERT INTO "variants" VALUES(48051,73,'Maroon / M','Maroon','M','low_stock',NULL,1,'2026-03-01T12:01:00.000005Z','2026-03-01T12:01:00.000005Z','2026-03-01T12:01:00.000005Z','2026-03-01T12:01:00.000005Z','webhook','newer','2026-03-01T12:01:00.000005Z',NULL,5,25,'9.50','8.75');
INSERT INTO "variants" VALUES(48056,73,'Navy','Navy','3XL','out_of_stock',NULL,0,NULL,NULL,'2026-03-01T12:00:00.000000Z','2026-03-01T12:00:00.000000Z','read','settled','2026-03-01T12:00:00.000000Z',NULL,NULL,17,NULL,NULL);
INSERT INTO "variants" VALUES(48060,73,'Red','Red','3XL','in_stock',NULL,1,NULL,NULL,'2026-03-01T12:00:00.000000Z','2026-03-01T12:00:00.000000Z','read','settled','2026-03-01T12:00:00.000000Z',NULL,NULL,18,NULL,NULL);
INSERT INTO "variants" VALUES(48062,73,'Sport Grey / M','Sport Grey','M','out_of_stock',NULL,0,'2026-03-01T12:01:00.000003Z','2026-03-01T12:01:00.000003Z','2026-03-01T12:01:00.000003Z','2026-03-01T12:01:00.000005Z','webhook','newer','2026-03-01T12:01:00.000005Z',NULL,3,23,'9.50','8.75');
INSERT INTO "variants" VALUES(48067,73,'Maroon / XL','Maroon','XL','in_stock',NULL,1,'2026-03-01T12:01:00.000004Z','2026-03-01T12:01:00.000004Z','2026-03-01T12:01:00.000004Z','2026-03-01T12:01:00.000005Z','webhook','newer','2026-03-01T12:01:00.000005Z',NULL,4,24,'9.50','8.75');
CREATE TABLE webhook_states (
    change_id INTEGER PRIMARY KEY AUTOINCREMENT,
    state TEXT NOT NULL,            -- see webhook_health
    began_at TEXT NOT NULL
);
CREATE UNIQUE INDEX "idx__sqlite_migrations_migration_set_name"
    ON "_sqlite_migrations" ("migration_set", "name");
CREATE INDEX items_by_read ON items (confirmed_at);
CREATE INDEX items_put_off ON items (not_before) WHERE not_before IS NOT NULL;
CREATE INDEX variants_by_item ON variants (item_id);
CREATE INDEX variants_apart ON variants (confirmed_at) WHERE value IS NOT NULL
    AND (conflicting_values IS NOT NULL OR missing_since IS NOT NULL OR item_id IS NULL);
CREATE INDEX variants_absent ON variants (missing_since) WHERE missing_since IS NOT NULL;
CREATE INDEX refresh_queue_due ON refresh_queue (settle_at);
CREATE INDEX refresh_queue_asked ON refresh_queue (urgent_at) WHERE urgent_at IS NOT NULL;
CREATE INDEX sweeps_open ON sweeps (sweep_id) WHERE ended_at IS NULL;
CREATE INDEX sweep_items_todo ON sweep_items (item_id) WHERE state = 'todo';
CREATE INDEX deliveries_without_rule ON deliveries (variant_id, event_id, content_key)
    WHERE rule IS NULL;
CREATE INDEX deliveries_quarantined ON deliveries (delivery_id) WHERE outcome = 'quarantined';
CREATE INDEX change_log_missed ON change_log (variant_id) WHERE missed = 1;
CREATE INDEX change_log_missed_at ON change_log (recorded_at) WHERE missed = 1;
CREATE INDEX change_log_removals ON change_log (recorded_at) WHERE availability IS NULL;
CREATE VIEW changes AS
-- One row for each change of availability, sellable or removed, oldest first. The contract.
SELECT seq, variant_id, item_id, old_availability, availability, old_sellable, sellable, cause,
       missed, occurred_at, recorded_at
FROM change_log;
CREATE VIEW freshness AS
-- One row: the last signs of life of the daemon, its deliveries and its sweeps. The contract. A
-- time in the future is NULL: the clock was set back, so the age of the event is unknown.
SELECT (SELECT max(at) FROM (
            SELECT value AS at FROM state WHERE key = 'last_delivery_at'
            UNION ALL
            SELECT received_at FROM deliveries
            WHERE delivery_id = (SELECT max(delivery_id) FROM deliveries)
                AND action IS NOT 'syncd-doctor')
        WHERE at <= strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '+60 seconds')) AS last_delivery_at,
       (SELECT max(ended_at) FROM sweeps
        WHERE is_catalogue = 1 AND result IN ('complete', 'partial')
          AND ended_at <= strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '+60 seconds'))
           AS last_sweep_finished_at,
       -- min(confirmed_at) of `availability` WHERE removed = 0, without reading all of it.
       -- The oldest read that is the newest evidence for a variant:
       (WITH read(at) AS (
            SELECT confirmed_at FROM items i WHERE confirmed_at IS NOT NULL AND EXISTS
                (SELECT 1 FROM variants v
                 WHERE v.item_id = i.item_id AND v.confirmed_at <= i.confirmed_at
                   AND v.value IS NOT NULL AND v.conflicting_values IS NULL
                   AND v.missing_since IS NULL)
            ORDER BY confirmed_at LIMIT 1)
        SELECT CASE WHEN min(at) <= strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '+60 seconds')
                    THEN min(at) END FROM (
            SELECT at FROM read
            UNION ALL
            -- deliveries since then, for items that were read earlier or never:
            SELECT min(v.confirmed_at) FROM items i CROSS JOIN variants v ON v.item_id = i.item_id
            WHERE i.confirmed_at < coalesce((SELECT at FROM read), '~')
              AND v.value IS NOT NULL AND v.conflicting_values IS NULL AND v.missing_since IS NULL
            UNION ALL
            SELECT min(v.confirmed_at) FROM items i CROSS JOIN variants v ON v.item_id = i.item_id
            WHERE i.confirmed_at IS NULL
              AND v.value IS NOT NULL AND v.conflicting_values IS NULL AND v.missing_since IS NULL
            UNION ALL
            -- variants without evidence by a read of their item:
            SELECT min(confirmed_at) FROM variants WHERE value IS NOT NULL
                AND (conflicting_values IS NOT NULL OR missing_since IS NOT NULL
                     OR item_id IS NULL)))
           AS oldest_confirmed_at,
       coalesce((SELECT value FROM state WHERE key = 'webhooks_state'), 'unknown')
           AS webhooks_state,
       (SELECT value FROM state WHERE key = 'daemon_seen_at'
        AND value <= strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '+60 seconds')) AS daemon_seen_at;
CREATE INDEX list_rows_changed ON list_rows (changed_at) WHERE changed_at IS NOT NULL;
CREATE INDEX list_rows_awaited ON list_rows (item_id) WHERE is_awaited = 1;
CREATE INDEX skus_by_variant ON skus (variant_id);
CREATE VIEW availability AS
-- One row for each variant, as the mirror has it now. The contract; its number is user_version.
SELECT v.variant_id, v.item_id, i.name AS item_name, v.name AS variant_name, v.color, v.size,
       v.value AS availability, v.sellable, v.value IS NULL AS removed,
       v.conflicting_values IS NOT NULL AS verifying, v.changed_at,
       CASE WHEN v.conflicting_values IS NULL AND v.missing_since IS NULL
            THEN max(v.confirmed_at, coalesce(i.confirmed_at, ''))
            ELSE v.confirmed_at END AS confirmed_at,
       v.source,
       CASE WHEN v.sellable THEN NULL
            WHEN v.value IS NULL THEN 'removed'
            WHEN v.conflicting_values IS NOT NULL THEN 'verifying'
            WHEN i.is_blocked THEN 'item'
            ELSE 'value' END AS reason,
       v.cost, v.basic_cost,
       i.release_status AS item_release_status, i.operational_status AS item_operational_status,
       i.countries
FROM variants v LEFT JOIN items i ON i.item_id = v.item_id;
CREATE VIEW listings AS
-- One row for each SKU of the shop, as the mirror has its variant now. The contract.
SELECT s.sku, s.title, s.variant_id, v.item_id, i.name AS item_name, v.name AS variant_name,
       v.color, v.size, v.value AS availability, coalesce(v.sellable, 0) AS sellable,
       CASE WHEN v.variant_id IS NULL THEN 'unknown' ELSE
            CASE WHEN v.sellable THEN NULL
            WHEN v.value IS NULL THEN 'removed'
            WHEN v.conflicting_values IS NOT NULL THEN 'verifying'
            WHEN i.is_blocked THEN 'item'
            ELSE 'value' END END AS reason,
       v.variant_id IS NOT NULL AND v.value IS NULL AS removed,
       v.conflicting_values IS NOT NULL AS verifying, v.variant_id IS NOT NULL AS known,
       v.changed_at,
       CASE WHEN v.conflicting_values IS NULL AND v.missing_since IS NULL
            THEN max(v.confirmed_at, coalesce(i.confirmed_at, ''))
            ELSE v.confirmed_at END AS confirmed_at
FROM skus s LEFT JOIN variants v ON v.variant_id = s.variant_id
     LEFT JOIN items i ON i.item_id = v.item_id;
DELETE FROM "sqlite_sequence";
COMMIT;
