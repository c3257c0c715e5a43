# Read syncd's mirror: what may be sold? Copy this file; it needs sqlite3 (Debian: sqlite3).
#
#     . ./mirror.sh
#     may_sell 48211 48212         # prints the ids of variants that may be sold now, one a line
#     may_sell_skus TEE-M TEE-L    # prints the SKUs that may be sold now, one a line
#
# Set MIRROR to read another file.
# shellcheck shell=sh

: "${MIRROR:=/var/lib/syncd/availability.db}"

# Prints which of these variants may be sold now, one a line; after an error, none.
may_sell() {
    ids=$(echo "$*" | tr ' ' ',')
    case $ids in
        *[!0-9,]*)
            echo "these are not ids of variants: $*" >&2
            return 0
            ;;
    esac
    mirror_sellable "SELECT variant_id FROM availability WHERE variant_id IN ($ids)"
}

# Prints which of these SKUs may be sold now, one a line; after an error, none.
may_sell_skus() {
    mirror_sellable "SELECT sku FROM listings WHERE sku IN ($(mirror_texts "$@"))"
}

# Prints the row of one variant as JSON. The id must be a number.
variant() {
    mirror_query -json "$MIRROR" "SELECT * FROM availability WHERE variant_id = $1"
}

# Prints the row of one SKU as JSON.
listing() {
    mirror_query -json "$MIRROR" "SELECT * FROM listings WHERE sku = $(mirror_texts "$1")"
}

# Prints the changes from your stored row on. If the first line is another row, start over.
changes() {
    mirror_query "$MIRROR" "SELECT seq, recorded_at, variant_id, availability, sellable
        FROM changes WHERE seq >= $1 ORDER BY seq LIMIT 1000"
}

# Prints a position in the feed, then the content of availability at that position or later.
start_over() {
    mirror_query "$MIRROR" "SELECT seq, recorded_at FROM changes ORDER BY seq DESC LIMIT 1;
        SELECT variant_id, availability, sellable FROM availability"
}

# Completes and runs a query for what may be sold now.
mirror_sellable() {
    mirror_query "$MIRROR" "$1 AND sellable = 1
        AND confirmed_at > strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '-1 day')
        AND (SELECT daemon_seen_at FROM freshness)
            BETWEEN strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '-5 minutes')
                AND strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '+1 minute')" ||
        echo "the mirror $MIRROR cannot be read" >&2
}

# Prints texts as SQL writes them, separated by commas.
mirror_texts() {
    comma=
    for text; do
        printf "%s'%s'" "$comma" "$(printf '%s\n' "$text" | sed "s/'/''/g")"
        comma=,
    done
}

# Runs a query, after an error once more, and prints only a complete answer.
mirror_query() {
    answer=$(sqlite3 -readonly -cmd '.timeout 1000' "$@" 2>/dev/null) ||
        answer=$(sqlite3 -readonly -cmd '.timeout 1000' "$@") || return
    [ -z "$answer" ] || printf '%s\n' "$answer"
}
